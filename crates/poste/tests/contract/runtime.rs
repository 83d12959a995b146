//! The runtimes that futures are tried on, each with one thread and with several.

use std::future::Future;
use std::time::Duration;

use futures_lite::future::or;
use poste::futures::Reactor;

/// What the clauses need of a runtime.
pub(crate) trait Runtime: Sized {
    type Reactor: Reactor + 'static;

    /// One that has a thread, that which blocks, and one that has several.
    fn flavours() -> [Self; 2];

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T;

    /// A task of its own. It panics where that one did.
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T>;

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send;
}

/// What comes in time.
pub(crate) async fn timeout<R: Runtime, T>(
    time: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let over = async {
        R::sleep(time).await;
        None
    };
    or(async { Some(future.await) }, over).await
}

#[cfg(feature = "tokio")]
pub(crate) struct Tokio(tokio::runtime::Runtime);

#[cfg(feature = "tokio")]
impl Runtime for Tokio {
    type Reactor = poste::tokio::Reactor;

    fn flavours() -> [Tokio; 2] {
        use tokio::runtime::Builder;
        let current = Builder::new_current_thread().enable_all().build();
        let multi = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        [current, multi].map(|runtime| Tokio(runtime.unwrap()))
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        let task = self.0.spawn(future);
        async { task.await.unwrap() }
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }
}

#[cfg(feature = "async-io")]
pub(crate) use smol::Smol;

#[cfg(feature = "async-io")]
mod smol {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;

    use async_executor::Executor;
    use async_io::{Timer, block_on};

    use super::{Duration, Future, Runtime};

    /// What smol is made of: async-io's reactor and async-executor's tasks.
    pub(crate) struct Smol {
        executor: Arc<Executor<'static>>,
        is_over: Arc<AtomicBool>,
        workers: Vec<JoinHandle<()>>,
    }

    impl Smol {
        /// There is one for the process, which stays.
        pub(crate) fn make_the_only_reactor() {
            block_on(Timer::after(Duration::from_millis(1)));
        }

        fn with(workers: usize) -> Smol {
            let executor: Arc<Executor<'static>> = Arc::default();
            let is_over: Arc<AtomicBool> = Arc::default();
            let work = |executor: Arc<Executor<'static>>, is_over: Arc<AtomicBool>| {
                while !is_over.load(Ordering::SeqCst) {
                    block_on(executor.run(Timer::after(Duration::from_millis(10))));
                }
            };
            let start = |_| {
                let (executor, is_over) = (Arc::clone(&executor), Arc::clone(&is_over));
                std::thread::spawn(move || work(executor, is_over))
            };
            let workers = (0..workers).map(start).collect();
            Smol { executor, is_over, workers }
        }
    }

    impl Runtime for Smol {
        type Reactor = poste::async_io::Reactor;

        fn flavours() -> [Smol; 2] {
            [Smol::with(0), Smol::with(2)]
        }

        fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
            match self.workers[..] {
                [] => block_on(self.executor.run(future)),
                _ => block_on(future),
            }
        }

        fn spawn<T: Send + 'static>(
            &self,
            future: impl Future<Output = T> + Send + 'static,
        ) -> impl Future<Output = T> {
            self.executor.spawn(future)
        }

        async fn sleep(time: Duration) {
            Timer::after(time).await;
        }
    }

    impl Drop for Smol {
        fn drop(&mut self) {
            self.is_over.store(true, Ordering::SeqCst);
            for worker in self.workers.drain(..) {
                // A task that panicked has said so.
                let _ = worker.join();
            }
        }
    }
}
