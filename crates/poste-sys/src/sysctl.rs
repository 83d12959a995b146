//! The kernel's settings, by the names that sysctl(8) gives them.
//!
//! Reads only; raising a limit is the administrator's business. Sources: proc(5), sysctl(8).

use std::fs;

/// The value of a setting (`fs.mqueue.msg_max`), or nothing where this machine doesn't tell.
#[must_use]
pub fn read(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_by_its_name() {
        assert!(read("kernel.pid_max").unwrap() > 0);
        assert_eq!(read("kernel.no_such_setting"), None);
    }
}
