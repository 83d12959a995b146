//! An object that is removed while a receiver waits for it, in each form of waiting.

use std::thread;
use std::time::{Duration, Instant};

use poste::{Kind, Receiver, Wait};

#[test]
fn a_fifo_that_is_removed_ends_every_wait() {
    let path = std::env::temp_dir().join(format!("poste-removed-{}", std::process::id()));
    let address = format!("fifo:{}", path.display());
    let long = Duration::from_secs(20);
    for wait in [Wait::Forever, Wait::For(long), Wait::Until(Instant::now() + long)] {
        let mut receiver = Receiver::create(&address).unwrap();
        let waiting = thread::spawn(move || receiver.recv_wait(wait).unwrap_err().kind());
        thread::sleep(Duration::from_millis(100));
        poste::remove(&address).unwrap();
        assert_eq!(waiting.join().unwrap(), Kind::Removed, "{wait:?}");
    }
}
