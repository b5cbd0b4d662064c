//! A process of the binary under test, its output, and its end.

use crate::wire::{Answer, Wire, get};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A machine under load may take long to start a process; a healthy one takes milliseconds.
const START_MAX: Duration = Duration::from_secs(30);

/// Looks again and again until `found` finds something.
pub(crate) fn eventually<T>(what: &str, within: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(it) = found() {
            return it;
        }
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A directory of one test, gone with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-front-door-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file and tells its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The binary, with nothing of this machine's environment that it would read.
pub(crate) fn command(args: &[&str]) -> Command {
    command_within(&[], args)
}

/// The same, started by the command line `within`, which becomes it.
fn command_within(within: &[&str], args: &[&str]) -> Command {
    let words = [within, &[env!("CARGO_BIN_EXE_tidegate")], args].concat();
    let mut command = Command::new(words[0]);
    command.stdin(Stdio::null());
    command.args(&words[1..]).env_remove("ANTHROPIC_API_KEY").env_remove("RUST_LOG");
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        // Those that a test wants are set by `within`.
        command.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    command
}

/// Runs a command that ends by itself: its exit code, standard output and standard error.
pub(crate) fn finished(args: &[&str]) -> (i32, String, String) {
    let mut child = command(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = ended(&mut child, START_MAX).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{args:?} does not end")
    });
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (status.code().unwrap_or(-1), out, err)
}

fn ended(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if began.elapsed() > within {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A gateway that runs.
pub(crate) struct Tidegate {
    child: Child,
    output: Arc<Mutex<String>>,
    pub(crate) gateway: SocketAddr,
    pub(crate) admin: SocketAddr,
    simulator: Option<SocketAddr>,
    truth: Option<SocketAddr>,
    folder: Folder,
}

const FREE: &str = "127.0.0.1:0";

impl Tidegate {
    /// A gateway with the simulator behind it.
    pub(crate) fn simulated() -> Self {
        Tidegate::simulated_with("", &[])
    }

    /// The same, with settings and further flags.
    pub(crate) fn simulated_with(config: &str, flags: &[&str]) -> Self {
        let simulate = ["--simulate", "--simulate-listen", FREE, "--truth-listen", FREE];
        Tidegate::start(config, &[&simulate[..], flags].concat())
    }

    /// A gateway in front of `upstream`.
    pub(crate) fn before(upstream: SocketAddr, key: &str, config: &str) -> Self {
        let url = format!("http://{upstream}");
        Tidegate::start(config, &["--upstream", &url, "--upstream-key", key])
    }

    /// The same where another one has been.
    pub(crate) fn before_at(listen: SocketAddr, upstream: SocketAddr, key: &str, config: &str) -> Self {
        let (listen, url) = (listen.to_string(), format!("http://{upstream}"));
        Tidegate::start_on(&listen, &[], config, &["--upstream", &url, "--upstream-key", key])
    }

    /// A gateway whose upstreams stand in `config`.
    pub(crate) fn configured(config: &str) -> Self {
        Tidegate::start(config, &[])
    }

    /// A gateway with the simulator behind it, started by the command line `within`.
    pub(crate) fn simulated_within(within: &[&str], config: &str) -> Self {
        let simulate = ["--simulate", "--simulate-listen", FREE, "--truth-listen", FREE];
        Tidegate::start_within(within, config, &simulate)
    }

    /// A gateway whose upstreams stand in `config`, with these variables of the environment.
    pub(crate) fn configured_within(variables: &[&str], config: &str) -> Self {
        Tidegate::start_within(&[&["env"], variables].concat(), config, &[])
    }

    fn start(config: &str, flags: &[&str]) -> Self {
        Tidegate::start_within(&[], config, flags)
    }

    fn start_within(within: &[&str], config: &str, flags: &[&str]) -> Self {
        Tidegate::start_on(FREE, within, config, flags)
    }

    fn start_on(listen: &str, within: &[&str], config: &str, flags: &[&str]) -> Self {
        let folder = Folder::new();
        let file = folder.write("tidegate.toml", config);
        let common = ["serve", "--config", &file, "--listen", listen, "--admin-listen", FREE];
        let child = Tidegate::spawn(command_within(within, &[&common[..], flags].concat()));
        Tidegate::come_up(child, folder).unwrap_or_else(|why| panic!("{why}"))
    }

    /// A process that takes over from `elder`, with these further flags; what it says if it cannot.
    pub(crate) fn taking_over(elder: &Tidegate, config: &str, flags: &[&str]) -> Result<Self, String> {
        let folder = Folder::new();
        let file = folder.write("tidegate.toml", config);
        let (listen, admin) = (elder.gateway.to_string(), elder.admin.to_string());
        let common = ["serve", "--config", &file, "--listen", &listen, "--admin-listen", &admin, "--upgrade"];
        Tidegate::come_up(Tidegate::spawn(command(&[&common[..], flags].concat())), folder)
    }

    /// A gateway in front of `upstream`, started by `command` with these further flags.
    pub(crate) fn started_by(command: Command, folder: Folder) -> Self {
        Tidegate::come_up(Tidegate::spawn(command), folder).unwrap_or_else(|why| panic!("{why}"))
    }

    fn spawn(mut command: Command) -> (Child, Arc<Mutex<String>>) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        keep(child.stdout.take().unwrap(), &output);
        keep(child.stderr.take().unwrap(), &output);
        (child, output)
    }

    fn come_up((mut child, output): (Child, Arc<Mutex<String>>), folder: Folder) -> Result<Self, String> {
        let began = Instant::now();
        while !output.lock().unwrap().lines().any(|l| l == "ready") {
            if child.try_wait().unwrap().is_some() {
                // What it said is read by another thread.
                std::thread::sleep(Duration::from_millis(100));
                return Err(output.lock().unwrap().clone());
            }
            assert!(began.elapsed() < START_MAX, "{}", output.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = output.lock().unwrap().clone();
        let at = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name))?;
            line.rsplit("://").next()?.parse().ok()
        };
        Ok(Tidegate {
            gateway: at("gateway").unwrap(),
            admin: at("admin").unwrap(),
            simulator: at("simulator"),
            truth: at("truth"),
            child,
            output,
            folder,
        })
    }

    /// Puts another configuration in the place of the one it runs under, as editors do.
    pub(crate) fn reconfigure(&self, config: &str) {
        let new = self.folder.write("tidegate.toml.new", config);
        std::fs::rename(new, self.folder.path("tidegate.toml")).unwrap();
    }

    /// Where its configuration is.
    pub(crate) fn config_file(&self) -> String {
        self.folder.path("tidegate.toml")
    }

    /// A new connection of a client.
    pub(crate) fn client(&self) -> Wire {
        Wire::to(self.gateway)
    }

    /// One request by a client of its own.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        Wire::to(self.gateway).ask(request)
    }

    /// One request past the gateway, straight to the simulator.
    pub(crate) fn ask_simulator(&self, request: impl AsRef<[u8]>) -> Answer {
        Wire::to(self.simulator.unwrap()).ask(request)
    }

    /// Where its simulator listens.
    pub(crate) fn simulator(&self) -> SocketAddr {
        self.simulator.unwrap()
    }

    /// Where its simulator tells the truth.
    pub(crate) fn truth_at(&self) -> SocketAddr {
        self.truth.unwrap()
    }

    /// A page of the admin door.
    pub(crate) fn admin(&self, path: &str) -> Answer {
        Wire::to(self.admin).ask(get(path, &[]))
    }

    /// The value of a metric, its labels included in `name`; 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.admin("/metrics").text();
        let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |v| v.parse().unwrap())
    }

    /// The table of live requests.
    pub(crate) fn streams(&self) -> Vec<Value> {
        self.admin("/streams").json()["streams"].as_array().unwrap().clone()
    }

    /// The simulator's ground truth.
    pub(crate) fn truth(&self, path: &str) -> Value {
        Wire::to(self.truth.unwrap()).ask(get(path, &[])).json()
    }

    /// All it has written so far, on both outputs. Its log is written by a thread of its own, so a
    /// line may come after the answer it is about: [`Self::says`] waits for it.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// What it has written, once `text` is in it.
    pub(crate) fn says(&self, text: &str) -> String {
        eventually(text, Duration::from_secs(10), || Some(self.output()).filter(|all| all.contains(text)))
    }

    /// How often `text` stands in what it has written, once its log has come this far: lines are
    /// written a moment after what they tell of.
    pub(crate) fn logged(&self, text: &str) -> usize {
        let records = || self.output().matches("invalid_header").count();
        let before = records();
        assert_eq!(self.ask(get("/v1/models", &[("tidegate-organisation", "?")])).status, 400);
        eventually("the log", Duration::from_secs(10), || (records() > before).then_some(()));
        self.output().matches(text).count()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory it has, bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Its exit code, if it ends in time.
    pub(crate) fn exit(&mut self, within: Duration) -> Option<i32> {
        ended(&mut self.child, within)?.code()
    }

    /// Waits until nothing is held for anybody: no request, lease, byte or busy connection.
    pub(crate) fn comes_to_rest(&self) {
        eventually("everything goes back to zero", Duration::from_secs(10), || {
            let page = self.admin("/metrics").text();
            let held = |line: &&str| {
                ["streams_open", "queue_waiting", "leases", "budget_bytes", "client_connections", "client_streams"]
                    .iter()
                    .any(|n| line.strip_prefix("tidegate_").is_some_and(|l| l.starts_with(n)))
                    || line.starts_with("tidegate_upstream_connections") && line.contains("\"busy\"")
            };
            let held: Vec<_> = page.lines().filter(held).filter(|l| !l.ends_with(" 0")).collect();
            held.is_empty().then_some(())
        });
        assert_eq!(self.metric("tidegate_leases_leaked_total"), 0.0);
    }
}

/// Collects what comes from `from` until it closes.
fn keep(from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut text = into.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{:?} {}", self.child.try_wait(), self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
