//! Gets the URL as an ordinary program that uses reqwest does.
fn main() {
    let url = std::env::args().nth(1).expect("a URL");
    rustls::crypto::ring::default_provider().install_default().expect("the first one");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async { reqwest::Client::builder().build()?.get(&url).send().await?.text().await });
    match outcome {
        Ok(text) => println!("{text}"),
        Err(error) => { println!("{error:?}"); std::process::exit(1) }
    }
}
