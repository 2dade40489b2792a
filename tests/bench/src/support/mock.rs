//! The mock server, on threads of its own, so that what it takes is not counted as the bots'.

use std::{net::SocketAddr, time::Duration};

use jingle_xmlstream::Connector;
use mock_server::MockServer;
use tokio::runtime::Runtime;

/// What the names of its threads begin with.
pub const THREADS: &str = "mock-server";

/// For what the mock server does at the moment.
const PATIENCE: Duration = Duration::from_secs(1);

/// A running one.
pub struct Mock {
    /// To delay what goes over it, and to forget what did.
    pub server: MockServer,
    runtime: Option<Runtime>,
}

impl Mock {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// If 127.0.0.1 has no free port, or the system no more threads.
    #[must_use]
    pub fn start() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name(THREADS).enable_all().build();
        let runtime = runtime.expect("a thread for the mock server");
        let starting = runtime.spawn(MockServer::start());
        let server = futures::executor::block_on(starting).expect("the mock server starts");
        Self { server, runtime: Some(runtime) }
    }

    /// How to reach it.
    #[must_use]
    pub fn connector(&self) -> Connector {
        connector(self.server.addr())
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // Processor time is counted without its threads', so none of them may end while that is measured again. A thread of
        // its own may wait for them, the one here may be another runtime's.
        let ending = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE));
        let _ = ending.join();
    }
}

/// How to reach a mock server, which may be in another process.
#[must_use]
pub fn connector(address: SocketAddr) -> Connector {
    let mut connector = Connector::default().server(address.ip().to_string(), address.port());
    connector.dangerous().plaintext();
    connector
}
