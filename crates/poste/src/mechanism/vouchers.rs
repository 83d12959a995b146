//! What the kernel says of a packet's sender, and what that means.
//!
//! What was queued before anybody asked for credentials comes as process 0 with the user and group
//! that stand for nobody: nothing is known of it. Process 0 with others is one of another pid
//! namespace, and its user and group are as good as any.
//! Sources: unix(7) (SCM_CREDENTIALS), user_namespaces(7) and proc(5) (overflowuid, overflowgid).

use std::cell::OnceCell;

use crate::credentials::Credentials;

/// Reads credentials; asks once who is nobody, and only where that matters.
#[derive(Debug, Default)]
pub(super) struct Vouchers {
    /// The user and group that stand for those that have none here; `None`: that isn't known.
    nobody: OnceCell<Option<(u32, u32)>>,
}

impl Vouchers {
    /// What a packet's process, user and group say of its sender.
    #[inline]
    pub(super) fn credentials(&self, who: Option<(i32, u32, u32)>) -> Credentials {
        let Some((pid, uid, gid)) = who else { return Credentials::default() };
        let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0);
        if pid.is_none() && self.may_be_nobody(uid, gid) {
            return Credentials::default();
        }
        Credentials { pid, uid: Some(uid), gid: Some(gid), process: None }
    }

    fn may_be_nobody(&self, uid: u32, gid: u32) -> bool {
        let nobody = self.nobody.get_or_init(|| Some((number("uid")?, number("gid")?)));
        nobody.is_none_or(|(user, group)| user == uid || group == gid)
    }
}

fn number(which: &str) -> Option<u32> {
    let path = format!("/proc/sys/kernel/overflow{which}");
    std::fs::read_to_string(path).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_of_another_pid_namespace_keeps_its_user_and_who_is_not_known_has_none() {
        let vouchers = Vouchers::default();
        let (user, group) = (number("uid").unwrap(), number("gid").unwrap());
        assert_eq!(vouchers.credentials(Some((0, user, group))), Credentials::default());
        let there = vouchers.credentials(Some((0, 1000, 100)));
        assert_eq!((there.pid(), there.uid(), there.gid()), (None, Some(1000), Some(100)));
        let here = vouchers.credentials(Some((7, user, group)));
        assert_eq!((here.pid(), here.uid(), here.gid()), (Some(7), Some(user), Some(group)));
        assert_eq!(vouchers.credentials(None), Credentials::default());
    }
}
