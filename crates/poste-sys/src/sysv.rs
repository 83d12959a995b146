//! System V message queues.
//!
//! A queue is a number that the kernel gave for a key; nothing has to be closed. Messages are never
//! cut short (no MSG_NOERROR). Sources: sysvipc(7), msgget(2), msgop(2), msgctl(2), ftok(3).

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::path::Path;

use libc::{c_int, c_long, c_uint};
use rustix::io::Errno;

use crate::last_errno;

/// A queue, by the number that the kernel gave it. The number outlives the queue: calls say then
/// that it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue(c_int);

impl Queue {
    /// The queue of a number, as /proc/sysvipc/msg shows it; it may not be there.
    #[must_use]
    pub fn of_number(number: i32) -> Queue {
        Queue(number)
    }

    /// The number that the kernel gave it.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

/// What the kernel knows of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The most bytes that it holds (`msg_qbytes`).
    pub capacity: usize,
    /// The bytes in it now.
    pub bytes: usize,
    /// The messages in it now.
    pub depth: usize,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Who made it; it may do what the owner may.
    pub maker: u32,
}

/// A message as the kernel takes it: a `long` that is its type, and its bytes right after. Linux' `long`
/// is as wide as `isize` everywhere.
///
/// ```text
///   words[0]        words[1..]
///   type            bytes … (size of them; the rest of the last word is meaningless)
/// ```
#[derive(Debug)]
pub struct Letter {
    words: Vec<isize>,
    size: usize,
}

const _: () = assert!(size_of::<isize>() == size_of::<c_long>());

impl Letter {
    /// Room for messages up to `room` bytes.
    #[must_use]
    pub fn new(room: usize) -> Letter {
        Letter { words: vec![0; 1 + room.div_ceil(size_of::<isize>())], size: 0 }
    }

    /// For how many bytes there is room.
    #[must_use]
    pub fn room(&self) -> usize {
        (self.words.len() - 1) * size_of::<isize>()
    }

    /// The message's type.
    #[must_use]
    pub fn message_type(&self) -> i64 {
        self.words[0] as i64
    }

    /// The message's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let start = self.words[1..].as_ptr().cast();
        debug_assert!(self.size <= self.room());
        // SAFETY: `size` never exceeds the bytes of the words after the first (`write` asserts it,
        // `receive` passes the kernel that limit), and initialised integers are valid bytes.
        unsafe { std::slice::from_raw_parts(start, self.size) }
    }

    /// Makes it a message of this type, of these parts one after the other; it grows as needed.
    pub fn write(&mut self, message_type: isize, parts: [&[u8]; 2]) {
        let size = parts[0].len() + parts[1].len();
        if size > self.room() {
            *self = Letter::new(size);
        }
        self.words[0] = message_type;
        self.size = size;
        assert!(size <= self.room());
        let start = self.words[1..].as_mut_ptr().cast();
        // SAFETY: just asserted that the words after the first have `size` bytes; they are
        // exclusively borrowed, initialised, and any bytes are valid integers.
        let bytes: &mut [u8] = unsafe { std::slice::from_raw_parts_mut(start, size) };
        let (head, body) = bytes.split_at_mut(parts[0].len());
        head.copy_from_slice(parts[0]);
        body.copy_from_slice(parts[1]);
    }
}

/// The key of a file that is there, and a number of which the low 8 bits count.
///
/// # Errors
/// What stat(2) says of the file.
pub fn ftok(path: &Path, number: u8) -> io::Result<i32> {
    let status = rustix::fs::stat(path)?;
    let key = u32::from(number) << 24
        | (status.st_dev as u32 & 0xff) << 16
        | (status.st_ino as u32 & 0xffff);
    Ok(key as i32)
}

/// Finds the queue of a key; `access` are permission bits (0400 to receive, 0200 to send) that
/// the caller must have on it.
///
/// # Errors
/// `ENOENT`, `EACCES`.
pub fn open(key: i32, access: u32) -> Result<Queue, Errno> {
    get(key, access as c_int & 0o777)
}

/// Makes the queue of a key, which must not be there yet, with exactly these permission bits.
///
/// # Errors
/// `EEXIST`; `ENOSPC` beyond `kernel.msgmni`.
pub fn create(key: i32, mode: u32) -> Result<Queue, Errno> {
    get(key, libc::IPC_CREAT | libc::IPC_EXCL | (mode as c_int & 0o777))
}

fn get(key: i32, flags: c_int) -> Result<Queue, Errno> {
    // SAFETY: takes integers only.
    let number = unsafe { libc::msgget(key, flags) };
    if number < 0 { Err(last_errno()) } else { Ok(Queue(number)) }
}

/// What the kernel knows of a queue; it asks for the right to receive from it.
///
/// # Errors
/// `EACCES`; `EIDRM` or `EINVAL` where it was removed.
pub fn status(queue: Queue) -> Result<Status, Errno> {
    let status = read_status(queue)?;
    Ok(Status {
        capacity: status.msg_qbytes as usize,
        bytes: status.__msg_cbytes as usize,
        depth: status.msg_qnum as usize,
        mode: c_uint::from(status.msg_perm.mode) & 0o777,
        uid: status.msg_perm.uid,
        maker: status.msg_perm.cuid,
    })
}

/// Sets the most bytes that a queue holds; the rest of what IPC_SET sets stays as it is.
///
/// # Errors
/// `EPERM` beyond `kernel.msgmnb` without privilege, or where the queue is somebody else's.
pub fn set_capacity(queue: Queue, capacity: usize) -> Result<(), Errno> {
    let mut status = read_status(queue)?;
    status.msg_qbytes = capacity as libc::msglen_t;
    // SAFETY: IPC_SET only reads the structure, which outlives the call.
    let result = unsafe { libc::msgctl(queue.0, libc::IPC_SET, &raw mut status) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn read_status(queue: Queue) -> Result<libc::msqid_ds, Errno> {
    let mut status = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: IPC_STAT writes the structure to memory of the right type, exclusively borrowed.
    let result = unsafe { libc::msgctl(queue.0, libc::IPC_STAT, status.as_mut_ptr()) };
    if result != 0 {
        return Err(last_errno());
    }
    // SAFETY: msgctl succeeded and filled it; it was zeroed before, and consists of integers.
    Ok(unsafe { status.assume_init() })
}

/// Removes a queue with what lies in it; who waits on it is woken with `EIDRM`.
///
/// # Errors
/// `EPERM` where it is somebody else's; `EIDRM` or `EINVAL` where it was removed.
pub fn remove(queue: Queue) -> Result<(), Errno> {
    // SAFETY: IPC_RMID ignores the pointer.
    let result = unsafe { libc::msgctl(queue.0, libc::IPC_RMID, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Puts a message in, waiting for room where `wait` says so.
///
/// # Errors
/// `EAGAIN` where there is no room and it may not wait; `EINVAL` beyond `kernel.msgmax`, with a
/// type below 1, or where the queue is gone; `EIDRM` where it went meanwhile; `EINTR`; `EACCES`.
pub fn send(queue: Queue, letter: &Letter, wait: bool) -> Result<(), Errno> {
    let flags = if wait { 0 } else { libc::IPC_NOWAIT };
    let pointer = letter.words.as_ptr().cast();
    debug_assert!(letter.size <= letter.room());
    // SAFETY: the words hold the type and at least `size` bytes after it (see `Letter::bytes`); the
    // kernel only reads them.
    let result = unsafe { libc::msgsnd(queue.0, pointer, letter.size, flags) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Takes a message out, waiting for one where `wait` says so: with `wanted` 0 the oldest, N the
/// oldest of that type, −N the oldest of the lowest type up to N.
///
/// # Errors
/// `E2BIG` where the message is larger than the letter's room (it stays in the queue); `EAGAIN`
/// where none is there (msgrcv says `ENOMSG`) and it may not wait; `EIDRM` or `EINVAL` where the
/// queue is gone; `EINTR`; `EACCES`.
pub fn receive(queue: Queue, letter: &mut Letter, wanted: isize, wait: bool) -> Result<(), Errno> {
    let flags = if wait { 0 } else { libc::IPC_NOWAIT };
    let room = letter.room();
    let pointer = letter.words.as_mut_ptr().cast();
    // SAFETY: the words are exclusively borrowed, and have room for the type and `room` bytes.
    let taken = unsafe { libc::msgrcv(queue.0, pointer, room, wanted as c_long, flags) };
    match usize::try_from(taken) {
        Ok(size) => {
            letter.size = size;
            Ok(())
        }
        Err(_) => Err(match last_errno() {
            Errno::NOMSG => Errno::AGAIN,
            errno => errno,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn a_key_is_the_one_of_the_c_library() {
        let path = std::env::current_exe().unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        for number in [1, 7, 255] {
            // SAFETY: `name` ends in NUL by its type.
            let expected = unsafe { libc::ftok(name.as_ptr(), c_int::from(number)) };
            assert_eq!(ftok(&path, number).unwrap(), expected);
        }
        assert!(ftok(Path::new("/no/such/file"), 1).is_err());
    }

    #[test]
    fn a_queue_is_made_filled_and_emptied() {
        let key = 0x7073_0000 | (std::process::id() & 0xffff) as i32;
        let queue = create(key, 0o640).unwrap();
        assert_eq!(create(key, 0o640), Err(Errno::EXIST));
        assert_eq!(open(key, 0o400), Ok(queue));
        set_capacity(queue, 24).unwrap();

        let mut letter = Letter::new(8);
        assert_eq!(receive(queue, &mut letter, 0, false), Err(Errno::AGAIN));
        letter.write(9, [b"a head, ", b"and a body"]);
        send(queue, &letter, true).unwrap();
        letter.write(3, [b"", b""]);
        send(queue, &letter, false).unwrap();
        letter.write(1, [b"too ", b"much"]);
        assert_eq!(send(queue, &letter, false), Err(Errno::AGAIN));
        let status = status(queue).unwrap();
        assert_eq!((status.capacity, status.mode, status.depth, status.bytes), (24, 0o640, 2, 18));

        let mut small = Letter::new(8);
        receive(queue, &mut small, -9, false).unwrap();
        assert_eq!((small.message_type(), small.bytes()), (3, &b""[..]));
        assert_eq!(receive(queue, &mut small, 9, true), Err(Errno::TOOBIG));
        receive(queue, &mut letter, 9, true).unwrap();
        assert_eq!(letter.bytes(), b"a head, and a body");
        remove(queue).unwrap();
        assert!(matches!(send(queue, &letter, true), Err(Errno::INVAL | Errno::IDRM)));
    }
}
