//! A gateway and a simulator inside this process, on free ports of this machine, with every setting
//! at its default: `chat --simulate` is `serve --simulate` and a chat in one. Conversations are kept
//! in a scratch file that goes with the process, or in a file that does not.

use crate::commands::scratch::conversation_log;
use crate::commands::simulate::Running;
use crate::commands::{Failed, key, listen, serve};
use crate::config::Config;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tidegate_gateway::Gateway;
use tidegate_observe::NoRecords;
use tidegate_transport::{Clock, TcpDial};

/// A person's requests come one by one; one data-plane thread is plenty.
const THREADS: u8 = 1;

/// They run until they are stopped.
pub(super) struct Embedded {
    gateway: Gateway,
    simulator: Running,
    /// The gateway's base URL.
    pub(super) url: String,
}

impl Embedded {
    /// Starts both; the gateway accepts on the caller's runtime and keeps conversations in `file`.
    pub(super) fn start(clock: Clock, file: Option<&Path>) -> Result<Self, Failed> {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator = Running::start("calm", 1, free, free, ["--simulate", "--simulate"], None)?;
        let mut config = Config { listen: free, conversations: file.map(Path::to_path_buf), ..Config::default() };
        config.settings.seed = u64::from_le_bytes(key::random()?);
        serve::use_simulator(&mut config, &simulator)?;
        config.check().map_err(Failed::because)?;
        let log = conversation_log(&config, true, None)?;
        let dial = TcpDial::new(clock, config.dial, &config.roots).map_err(Failed::because)?;
        let door = listen(config.listen, "--simulate")?;
        let url = format!("http://{}", door.local());
        let (dial, records) = (Arc::new(dial), Arc::new(NoRecords));
        let gateway = Gateway::remembering(config.settings, clock, dial, records, log);
        gateway.serve_on_threads(Box::new(door), THREADS).map_err(Failed::because)?;
        Ok(Embedded { gateway, simulator, url })
    }

    /// Ends both, once the gateway has written down what there is to write.
    pub(super) async fn stop(mut self) {
        self.gateway.drain().await;
        self.simulator.stop();
    }
}
