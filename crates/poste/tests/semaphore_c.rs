//! Semaphores and shared memory with C programs at the other end, as every course writes them; what
//! is left by the killed; and a file system that is full. Needs gcc; one test needs unshare.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use poste::{Kind, Memory, Semaphore};
use poste_sys::testing::skip;

/// What each program does is chosen by its first word; the second is the name.
const PROGRAM: &str = r#"
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct shared { sem_t lock; int counter; char text[64]; };

static sem_t *named(const char *name, const char *suffix) {
    char whole[256];
    snprintf(whole, sizeof whole, "%s%s", name, suffix);
    sem_t *s = sem_open(whole, 0);
    if (s == SEM_FAILED) { perror(whole); exit(1); }
    return s;
}

static void *mapped(const char *name, int flags, size_t size) {
    int fd = shm_open(name, O_RDWR | flags, 0600);
    if (fd < 0) { perror("shm_open"); exit(1); }
    if (flags && ftruncate(fd, size) < 0) { perror("ftruncate"); exit(1); }
    void *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) { perror("mmap"); exit(1); }
    close(fd);
    return at;
}

int main(int argc, char **argv) {
    const char *what = argv[1], *name = argv[2];
    if (!strcmp(what, "sizes")) {
        printf("%zu %zu %zu %zu\n", sizeof(sem_t), _Alignof(sem_t), sizeof(struct shared),
               __builtin_offsetof(struct shared, text));
    } else if (!strcmp(what, "make")) {
        sem_t *s = sem_open(name, O_CREAT | O_EXCL, 0600, 3);
        if (s == SEM_FAILED) { perror("sem_open"); return 1; }
    } else if (!strcmp(what, "add")) {
        /* a number in shared memory under a named mutex */
        sem_t *mutex = named(name, "");
        volatile int *counter = mapped(name, 0, 4096);
        for (int i = 0; i < 2000; i++) { sem_wait(mutex); ++*counter; sem_post(mutex); }
    } else if (!strcmp(what, "consume")) {
        sem_t *empty = named(name, "-empty"), *full = named(name, "-full"), *mutex = named(name, "-mutex");
        int *ring = mapped(name, 0, 4 * sizeof(int)), sum = 0;
        for (int i = 0; i < 100; i++) {
            sem_wait(full); sem_wait(mutex);
            sum += ring[i % 4];
            sem_post(mutex); sem_post(empty);
        }
        printf("%d\n", sum);
    } else if (!strcmp(what, "produce")) {
        sem_t *empty = named(name, "-empty"), *full = named(name, "-full"), *mutex = named(name, "-mutex");
        int *ring = mapped(name, 0, 4 * sizeof(int));
        for (int i = 0; i < 100; i++) {
            sem_wait(empty); sem_wait(mutex);
            ring[i % 4] = i;
            sem_post(mutex); sem_post(full);
        }
    } else if (!strcmp(what, "struct-make")) {
        struct shared *at = mapped(name, O_CREAT | O_EXCL, sizeof *at);
        at->counter = 40;
        strcpy(at->text, "from C");
        sem_init(&at->lock, 1, 1);
    } else if (!strcmp(what, "struct-add")) {
        struct shared *at = mapped(name, 0, sizeof *at);
        for (int i = 0; i < 2000; i++) { sem_wait(&at->lock); at->counter++; sem_post(&at->lock); }
        printf("%s\n", at->text);
    } else if (!strcmp(what, "write")) {
        strcpy(mapped(name, O_CREAT | O_EXCL, 4096), "hello from C");
    } else if (!strcmp(what, "read")) {
        printf("%s\n", (char *)mapped(name, 0, 4096));
    } else if (!strcmp(what, "hold")) {
        sem_wait(named(name, ""));
        puts("held");
        fflush(stdout);
        pause();
    }
    return 0;
}
"#;

/// The program, compiled once; `None` where there is no compiler.
static COMPILED: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("semaphore.c"), folder.join("semaphore_c_peer"));
    std::fs::write(&source, PROGRAM).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.arg("-o").arg(&program).arg(&source).arg("-pthread");
    let output = gcc.output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(program)
});

/// The C program, or the test is over and says so.
macro_rules! peer {
    ($test:literal) => {
        match &*COMPILED {
            Some(program) => Peer(program.clone()),
            None => return skip($test, "gcc is not installed"),
        }
    };
}

struct Peer(PathBuf);

impl Peer {
    fn command(&self, what: &str, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg("30").arg(&self.0).args([what, name]);
        command
    }

    #[track_caller]
    fn run(&self, what: &str, name: &str) -> String {
        let output = self.command(what, name).output().unwrap();
        assert!(output.status.success(), "{what}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&self, what: &str, name: &str) -> Child {
        self.command(what, name).stdout(Stdio::piped()).spawn().unwrap()
    }
}

/// A name that goes with the test, whatever was made under it.
struct Name(String);

impl Name {
    fn new(test: &str) -> Name {
        Name(format!("/poste-c-{test}-{}", std::process::id()))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // What the test took away itself, or never made, is not there.
        let _ = Memory::remove(&self.0);
        for suffix in ["", "-empty", "-full", "-mutex"] {
            let _ = Semaphore::remove(format!("{}{suffix}", self.0));
        }
    }
}

fn end(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn sizes_are_those_of_c() {
    let peer = peer!("sizes_are_those_of_c");
    let (size, align) = (Semaphore::SIZE, Semaphore::ALIGN);
    let whole = (size + 4 + 64).next_multiple_of(align);
    assert_eq!(peer.run("sizes", ""), format!("{size} {align} {whole} {}\n", size + 4));
}

#[test]
fn a_semaphore_of_c_is_opened_and_one_of_poste_is_opened_by_c() {
    let peer = peer!("a_semaphore_of_c_is_opened_and_one_of_poste_is_opened_by_c");
    let name = Name::new("made");
    peer.run("make", &name.0);
    let semaphore = Semaphore::open(&name.0).unwrap();
    assert_eq!(semaphore.value(), 3);
    Semaphore::remove(&name.0).unwrap();
    Semaphore::create(&name.0, 1).unwrap();
    let output = peer.command("make", &name.0).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("File exists"), "{output:?}");
}

#[test]
fn a_named_mutex_keeps_c_and_poste_apart() {
    let peer = peer!("a_named_mutex_keeps_c_and_poste_apart");
    let name = Name::new("mutex");
    let memory = Memory::create(&name.0, 4096).unwrap();
    let mutex = Semaphore::create(&name.0, 1).unwrap();
    let adding = [peer.start("add", &name.0), peer.start("add", &name.0)];
    for _ in 0..2000 {
        let mut counter = [0; 4];
        mutex.wait_timeout(Duration::from_secs(20)).unwrap();
        memory.read(0, &mut counter).unwrap();
        memory.write(0, &(i32::from_ne_bytes(counter) + 1).to_ne_bytes()).unwrap();
        mutex.post().unwrap();
    }
    adding.into_iter().for_each(|child| drop(end(child)));
    let mut counter = [0; 4];
    memory.read(0, &mut counter).unwrap();
    assert_eq!((i32::from_ne_bytes(counter), mutex.value()), (6000, 1));
}

fn three(name: &str) -> [Semaphore; 3] {
    [("empty", 4), ("full", 0), ("mutex", 1)]
        .map(|(word, value)| Semaphore::create(format!("{name}-{word}"), value).unwrap())
}

#[test]
fn three_counting_semaphores_join_a_producer_and_a_consumer() {
    let peer = peer!("three_counting_semaphores_join_a_producer_and_a_consumer");
    let name = Name::new("ring");
    let ring = Memory::create(&name.0, 16).unwrap();
    let [empty, full, mutex] = three(&name.0);
    let patience = Duration::from_secs(20);

    let consumer = peer.start("consume", &name.0);
    for item in 0..100_i32 {
        empty.wait_timeout(patience).unwrap();
        mutex.wait_timeout(patience).unwrap();
        ring.write(item as usize % 4 * 4, &item.to_ne_bytes()).unwrap();
        mutex.post().unwrap();
        full.post().unwrap();
    }
    assert_eq!(end(consumer), "4950\n");

    let producer = peer.start("produce", &name.0);
    let mut sum = 0;
    for place in 0..100 {
        let mut item = [0; 4];
        full.wait_timeout(patience).unwrap();
        mutex.wait_timeout(patience).unwrap();
        ring.read(place % 4 * 4, &mut item).unwrap();
        mutex.post().unwrap();
        empty.post().unwrap();
        sum += i32::from_ne_bytes(item);
    }
    end(producer);
    assert_eq!((sum, empty.value(), full.value(), mutex.value()), (4950, 4, 0, 1));
}

#[test]
fn a_structure_with_its_semaphore_is_shared_whoever_made_it() {
    let peer = peer!("a_structure_with_its_semaphore_is_shared_whoever_made_it");
    let name = Name::new("struct");
    let counter_at = Semaphore::SIZE;
    let size = (Semaphore::SIZE + 4 + 64).next_multiple_of(Semaphore::ALIGN);
    for made_by_c in [true, false] {
        let (memory, lock) = if made_by_c {
            peer.run("struct-make", &name.0);
            let memory = Memory::open(&name.0).unwrap();
            let lock = Semaphore::open_at(&memory, 0).unwrap();
            (memory, lock)
        } else {
            let memory = Memory::create(&name.0, size).unwrap();
            memory.write(counter_at, &40_i32.to_ne_bytes()).unwrap();
            memory.write(counter_at + 4, b"from poste\0").unwrap();
            let lock = Semaphore::init_at(&memory, 0, 1).unwrap();
            (memory, lock)
        };
        assert_eq!(memory.size().unwrap(), size);
        let adding = peer.start("struct-add", &name.0);
        let mut counter = [0; 4];
        for _ in 0..2000 {
            lock.wait_timeout(Duration::from_secs(20)).unwrap();
            memory.read(counter_at, &mut counter).unwrap();
            memory.write(counter_at, &(i32::from_ne_bytes(counter) + 1).to_ne_bytes()).unwrap();
            lock.post().unwrap();
        }
        assert_eq!(end(adding), if made_by_c { "from C\n" } else { "from poste\n" });
        memory.read(counter_at, &mut counter).unwrap();
        assert_eq!(i32::from_ne_bytes(counter), 4040);
        Memory::remove(&name.0).unwrap();
    }
}

#[test]
fn a_string_in_4096_bytes_goes_both_ways() {
    let peer = peer!("a_string_in_4096_bytes_goes_both_ways");
    let name = Name::new("string");
    peer.run("write", &name.0);
    let memory = Memory::open(&name.0).unwrap();
    let mut text = [0; 4096];
    memory.read(0, &mut text).unwrap();
    assert_eq!(&text[..13], b"hello from C\0");
    memory.write(0, b"hello from poste\0").unwrap();
    assert_eq!(peer.run("read", &name.0), "hello from poste\n");
    Memory::remove(&name.0).unwrap();
    Memory::create(&name.0, 4096).unwrap().write(0, b"made by poste\0").unwrap();
    assert_eq!(peer.run("read", &name.0), "made by poste\n");
}

#[test]
fn the_value_stays_0_when_its_holder_is_killed() {
    let peer = peer!("the_value_stays_0_when_its_holder_is_killed");
    let name = Name::new("holder");
    let semaphore = Semaphore::create(&name.0, 1).unwrap();
    let mut holder = Command::new(&peer.0);
    let mut holder = holder.args(["hold", &name.0]).stdout(Stdio::piped()).spawn().unwrap();
    let mut held = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(semaphore.value(), 0);
    let error = semaphore.wait_timeout(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), Kind::TimedOut);
    assert!(error.hint().contains("killed"), "{error:?}");
}

#[test]
fn what_has_another_size_is_no_semaphore() {
    let name = Name::new("size");
    let file = format!("/dev/shm/sem.{}", &name.0[1..]);
    for size in [0, 1, Semaphore::SIZE - 1, Semaphore::SIZE + 1, 4096] {
        std::fs::write(&file, vec![0; size]).unwrap();
        assert_eq!(Semaphore::open(&name.0).unwrap_err().kind(), Kind::Mismatch, "{size}");
    }
    let memory = Memory::create(&name.0, Semaphore::SIZE + 8).unwrap();
    for (offset, kind) in
        [(16, Kind::Mismatch), (1, Kind::Invalid), (usize::MAX - 7, Kind::Mismatch)]
    {
        assert_eq!(Semaphore::open_at(&memory, offset).unwrap_err().kind(), kind, "{offset}");
    }
    Semaphore::remove(&name.0).unwrap();
}

#[test]
fn the_mode_is_exactly_what_was_asked_for() {
    let name = Name::new("mode");
    for mode in [0o600, 0o666, 0o640, 0o777, 0o000] {
        Semaphore::create_with(&name.0, 1, mode).unwrap();
        Memory::create_with(&name.0, 1, mode).unwrap();
        for file in [format!("/dev/shm{}", name.0), format!("/dev/shm/sem.{}", &name.0[1..])] {
            assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o7777, mode);
        }
        Semaphore::remove(&name.0).unwrap();
        Memory::remove(&name.0).unwrap();
    }
}

/// What the test after it runs in a namespace where /dev/shm has 16 KiB, and nowhere else.
#[test]
fn within_a_full_file_system() {
    if std::env::var_os("POSTE_TEST_FULL").is_none() {
        return;
    }
    let too_large = Memory::create("/large", 64 << 10).unwrap_err();
    assert!(matches!(too_large.kind(), Kind::Limit { value: 16384, .. }), "{too_large:?}");
    assert!(too_large.hint().starts_with("mount -o remount,size="), "{too_large:?}");
    // More than any file system has: it is never even asked for.
    let vast = Memory::create("/vast", 1 << 45).unwrap_err();
    assert!(matches!(vast.kind(), Kind::Limit { .. }), "{vast:?}");
    // A peer that doesn't reserve: the page that is missing is an error, and no signal.
    let sparse = std::fs::File::create("/dev/shm/sparse").unwrap();
    sparse.set_len(64 << 10).unwrap();
    let sparse = Memory::open("/sparse").unwrap();
    let filling = Memory::create("/filling", 16 << 10).unwrap();
    let error = sparse.write(32 << 10, b"x").unwrap_err();
    assert!(matches!(error.kind(), Kind::Limit { .. }), "{error:?}");
    let error = Semaphore::init_at(&sparse, 48 << 10, 1).unwrap_err();
    assert!(matches!(error.kind(), Kind::Limit { .. }), "{error:?}");
    let error = Semaphore::create("/one", 1).unwrap_err();
    assert!(matches!(error.kind(), Kind::Limit { .. }), "{error:?}");
    filling.write(0, &[1; 16 << 10]).unwrap();
    let left: Vec<_> = std::fs::read_dir("/dev/shm").unwrap().collect();
    assert_eq!(left.len(), 2, "what failed left nothing: {left:?}");
}

#[test]
fn a_full_file_system_is_an_error_and_no_signal() {
    let test = "a_full_file_system_is_an_error_and_no_signal";
    let mount = "mount -t tmpfs -o size=16k tmpfs /dev/shm";
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", script, "sh"]).arg(std::env::current_exe().unwrap());
        command.env("POSTE_TEST_FULL", "1").output()
    };
    if !unshared(mount).is_ok_and(|output| output.status.success()) {
        return skip(test, "unshare -Urm cannot mount a tmpfs");
    }
    let script = format!("{mount} && exec timeout 30 \"$1\" --exact within_a_full_file_system");
    let output = unshared(&script).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

#[test]
fn the_examples_run() {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.ancestors().nth(2).unwrap().join("examples");
    for (example, expected) in [
        ("producer_consumer", "consumed 20 items, their sum is 190\n"),
        ("struct_with_semaphore", "counted by several: 4000\n"),
    ] {
        let program = folder.join(example);
        if !program.exists() {
            // `cargo test` builds them, but not where only this test was asked for.
            return skip("the_examples_run", "they are not built: cargo build --examples");
        }
        let output = Command::new("timeout").arg("30").arg(program).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}
