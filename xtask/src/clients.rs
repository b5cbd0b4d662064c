//! Real clients against a real server: the official SDKs and what is built on the API, twice each, first straight at the
//! simulator, then through the gateway. What both see must be the same, or differ as written.
//!
//! Each SDK of Python lives in a virtual environment of its own under `target/clients/`, the one of
//! TypeScript in `tests/clients/typescript/node_modules/`. A stamp beside it holds the text of what
//! was asked for; while that is the same, nothing is installed again.

use crate::process::{self, heading};
use crate::served::Served;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A suite takes some ten seconds.
const SUITE_PATIENCE: Duration = Duration::from_secs(300);
/// A server that is built starts at once; a busy machine may take its time.
pub(crate) const READY_PATIENCE: Duration = Duration::from_secs(20);

/// The majors of the Python SDK, as the names of their requirement files have them.
const PYTHONS: [(&str, &str); 2] = [("2", "anthropic 2.x"), ("0", "anthropic 0.x")];

/// The key that clients send to the simulator: one of an organisation called `client`.
const SIMULATOR_KEY: &str = "sk-ant-client-1";

fn folder(sdk: &str) -> PathBuf {
    process::root().join("tests").join("clients").join(sdk)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Installs unless the stamp says that just this was installed.
fn install_once(stamp: &Path, asked: &str, install: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    if read(stamp).is_ok_and(|had| had == asked) {
        return Ok(());
    }
    println!("installing {}", stamp.parent().unwrap_or(stamp).display());
    install()?;
    std::fs::write(stamp, asked).map_err(|error| format!("{}: {error}", stamp.display()))
}

/// The interpreter of the environment with this major of the SDK.
fn python_with(major: &str) -> Result<PathBuf, String> {
    let requirements = folder("python").join(format!("requirements-{major}.txt"));
    environment(&format!("python-{major}"), &requirements, Some(&folder("python").join("constraints.txt")))
}

/// The interpreter of an environment of this name, with what the files ask for.
pub(crate) fn environment(name: &str, requirements: &Path, constraints: Option<&Path>) -> Result<PathBuf, String> {
    let place = process::target().join("clients").join(name);
    let python = place.join("bin").join("python");
    let bounds = constraints.map(read).transpose()?.unwrap_or_default();
    let asked = format!("{}{}{bounds}", place.display(), read(requirements)?);
    let log = process::target().join("xtask").join("pip.log");
    install_once(&place.join("stamp"), &asked, || {
        let make = || {
            let mut venv = process::command("python3");
            process::run_quietly(venv.args(["-m", "venv", "--clear"]).arg(&place), &log)
        };
        // Debian keeps the part of Python that makes environments in a package of its own.
        make().or_else(|_| process::install("python3-venv").and_then(|()| make()))?;
        let mut pip = process::command(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
        if let Some(constraints) = constraints {
            pip.arg("--constraint").arg(constraints);
        }
        process::run_quietly(&mut pip, &log)
    })?;
    Ok(python)
}

/// Installs the packages of the TypeScript suite.
fn node_packages() -> Result<(), String> {
    let place = folder("typescript");
    let asked = read(&place.join("package.json"))?;
    let log = process::target().join("xtask").join("npm.log");
    install_once(&place.join("node_modules").join(".stamp"), &asked, || {
        let mut npm = process::command("npm");
        npm.args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]);
        process::run_quietly(npm.current_dir(&place), &log)
    })
}

/// A Python with the newest SDK, for snippets of the README.
pub(crate) fn python_for_readme() -> Result<Command, String> {
    python_with(PYTHONS[0].0).map(process::command)
}

/// A Node that finds the SDK, for snippets of the README.
pub(crate) fn node_for_readme() -> Result<Command, String> {
    node_packages()?;
    let mut node = process::command("node");
    node.current_dir(folder("typescript"));
    Ok(node)
}

/// The Python suite, with each major of the SDK.
pub(crate) fn python() -> Result<(), String> {
    heading("clients: environments of Python");
    process::need("openssl", "openssl")?;
    let pythons = PYTHONS.map(|(major, title)| python_with(major).map(|python| (title, python)));
    build()?;
    for python in pythons {
        let (title, python) = python?;
        twice(title, || {
            let mut pytest = process::command(&python);
            pytest.args(["-B", "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]).arg(folder("python"));
            pytest
        })?;
    }
    frameworks()
}

/// What people use on top of the API: LangChain's model and LiteLLM's client, in one environment.
fn frameworks() -> Result<(), String> {
    heading("clients: an environment for LangChain and LiteLLM");
    let place = folder("frameworks");
    let constraints = folder("python").join("constraints.txt");
    let python = environment("frameworks", &place.join("requirements.txt"), Some(&constraints))?;
    twice("LangChain and LiteLLM", || {
        let mut pytest = process::command(&python);
        // Their dependencies warn of one another.
        pytest.args(["-B", "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore"]).arg(&place);
        pytest
    })
}

/// The suites of the TypeScript SDK, the Vercel AI SDK and the examples, by Node's own test runner.
pub(crate) fn typescript() -> Result<(), String> {
    heading("clients: packages of Node");
    node_packages()?;
    build()?;
    twice("TypeScript", || {
        let mut node = process::command("node");
        node.args(["--test", "--test-reporter=spec"]).current_dir(folder("typescript"));
        node
    })
}

fn build() -> Result<(), String> {
    process::run(&mut process::cargo(&["build", "--quiet", "--package", "tidegate"]))
}

/// A key for clients of the gateway, in a configuration that asks for it.
fn gateway_key(tidegate: &Path, config: &Path) -> Result<String, String> {
    let made = process::command(tidegate).args(["key", "new", "--tenant", "client"]).output();
    let said = made.map_err(|error| format!("`tidegate key new`: {error}"))?;
    let (key, table) = key_of(&String::from_utf8_lossy(&said.stdout))?;
    std::fs::write(config, table).map_err(|error| format!("{}: {error}", config.display()))?;
    Ok(key)
}

/// The key, and the lines of configuration, in what `tidegate key new` prints.
fn key_of(said: &str) -> Result<(String, String), String> {
    let key = said.lines().map(str::trim).find(|line| line.starts_with("tg_"));
    let table = said.find("[[client_key]]").map(|at| said[at..].to_owned());
    let (Some(key), Some(table)) = (key, table) else {
        return Err(format!("`tidegate key new` printed no key and no [[client_key]]:\n{said}"));
    };
    Ok((key.to_owned(), table))
}

/// Runs a suite straight at the simulator, then through the gateway, each with a fresh server.
fn twice(title: &str, suite: impl Fn() -> Command) -> Result<(), String> {
    let tidegate = process::target().join("debug").join("tidegate");
    let place = process::target().join("xtask");
    std::fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let config = place.join("clients.toml");
    let gateway_key = gateway_key(&tidegate, &config)?;
    for (through, key) in [("simulator", SIMULATOR_KEY), ("gateway", &gateway_key)] {
        heading(&format!("clients: {title}, at the {through}"));
        let mut serve = process::command(&tidegate);
        serve.args(["serve", "--simulate", "--log-level", "warn", "--config"]).arg(&config).env("RUST_BACKTRACE", "0");
        for door in ["--listen", "--admin-listen", "--simulate-listen", "--truth-listen"] {
            serve.args([door, "127.0.0.1:0"]);
        }
        let served = Served::start(&mut serve, &place.join(format!("clients-{through}.log")), READY_PATIENCE)?;
        let mut suite = suite();
        suite
            .env("TIDEGATE_THROUGH", through)
            .env("TIDEGATE_BINARY", &tidegate)
            .env("TIDEGATE_BASE_URL", served.address(through)?)
            .env("TIDEGATE_TRUTH_URL", served.address("truth")?)
            .env("TIDEGATE_ADMIN_URL", served.address("admin")?)
            .env("TIDEGATE_API_KEY", key);
        if let Err(why) = process::run_within(&mut suite, SUITE_PATIENCE) {
            served.show();
            return Err(format!("{title}, at the {through}: {why}"));
        }
        served.stop().map_err(|why| format!("{title}, at the {through}: {why}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_already_is_not_installed_again() {
        let stamp = process::target().join("xtask").join("test-stamp");
        std::fs::create_dir_all(stamp.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&stamp);
        let mut installs = 0;
        for asked in ["a==1", "a==1", "a==2", "a==2"] {
            install_once(&stamp, asked, || {
                installs += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(installs, 2);
        assert!(install_once(&stamp, "a==3", || Err("no network".to_owned())).is_err());
        assert_eq!(read(&stamp).as_deref(), Ok("a==2"));
    }

    #[test]
    fn a_key_and_its_configuration_are_read_from_what_is_said() {
        let said = "The key:\n\n  tg_abc\n\nThe lines:\n\n[[client_key]]\ntenant = \"client\"\nhash = \"x\"\n";
        let (key, table) = key_of(said).unwrap();
        assert_eq!((key.as_str(), table.as_str()), ("tg_abc", "[[client_key]]\ntenant = \"client\"\nhash = \"x\"\n"));
        assert!(key_of("no").unwrap_err().contains("printed no key"));
    }
}
