//! Preset documents: never a panic, from the bytes of a file to a compiled preset.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reach::manifest;
use reach::presets::directory;

fuzz_target!(|text: &str| {
    let documents = manifest::documents(text);
    let whole: String = documents.iter().map(|document| document.text).collect();
    assert_eq!(whole, text, "documents are the stream");
    for object in documents.iter().filter_map(|document| document.read().ok().flatten()) {
        let _ = directory::preset(&object);
    }
});
