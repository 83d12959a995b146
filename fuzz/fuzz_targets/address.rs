//! Any text is an address or an error; an address, printed and read again, is the same one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use poste::{Address, Kind, parse_size};

fuzz_target!(|text: &str| {
    let _ = parse_size(text);
    match Address::parse(text) {
        Ok(address) => {
            let printed = address.to_string();
            assert!(!printed.contains(char::is_control));
            // Escapes are longer than what they stand for; the longest address is a limit on text.
            if printed.len() <= 16 << 10 {
                assert_eq!(Address::parse(&printed).unwrap(), address);
            }
        }
        Err(error) => assert_eq!(error.kind(), Kind::Invalid),
    }
});
