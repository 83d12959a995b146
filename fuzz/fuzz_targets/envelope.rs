//! Any bytes are a header or a fault; a header, encoded again, is read as the same one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use poste::envelope::{Fault, HEADER_MAX, Header, body_check};

fuzz_target!(|bytes: &[u8]| {
    let _ = body_check(bytes);
    match Header::decode(bytes) {
        Ok((header, length)) => {
            assert!(length <= bytes.len() && length == header.len());
            let mut buffer = [0; HEADER_MAX];
            assert_eq!(header.encode(&mut buffer), length);
            assert_eq!(Header::decode(&buffer), Ok((header, length)));
        }
        Err(Fault::Short(need)) => assert!(need > bytes.len() && need <= HEADER_MAX),
        Err(fault) => assert!(!fault.text().is_empty()),
    }
});
