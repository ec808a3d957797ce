#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| onespace_fuzz::etag::run(input));
