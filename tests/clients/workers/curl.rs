//! Gets a URL with the libcurl that is built in.

use std::ffi::{CStr, CString};
use std::os::raw::c_long;

fn main() {
    let url = std::env::args().nth(1).expect("a URL");
    let url = CString::new(url).expect("no NUL in a URL");
    // As the documentation of libcurl has it: one handle, set up, performed, cleaned up.
    let code = unsafe {
        curl_sys::curl_global_init(curl_sys::CURL_GLOBAL_ALL);
        if url.as_bytes() == b"--version" {
            println!("{}", CStr::from_ptr(curl_sys::curl_version()).to_string_lossy());
            return;
        }
        let handle = curl_sys::curl_easy_init();
        curl_sys::curl_easy_setopt(handle, curl_sys::CURLOPT_URL, url.as_ptr());
        curl_sys::curl_easy_setopt(handle, curl_sys::CURLOPT_TIMEOUT, 20 as c_long);
        let code = curl_sys::curl_easy_perform(handle);
        curl_sys::curl_easy_cleanup(handle);
        code
    };
    std::process::exit(i32::try_from(code).unwrap_or(1));
}
