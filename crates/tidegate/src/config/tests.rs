//! The file as people write it: the example, wrong values, secrets.

use super::costs::BudgetTable;
use super::tables::{ClocksTable, DialTable, LimitsTable, PoolTable, QueueTable, RetryTable, SocketsTable};
use super::*;
use std::collections::BTreeSet;

const EXAMPLE: &str = include_str!("../../../../tidegate.example.toml");

fn check(text: &str) -> Result<Config, String> {
    let env = |name: &str| (name == "ANTHROPIC_API_KEY").then(|| "sk-ant-1".to_owned());
    Config::parse(Path::new("t.toml"), text, &env).map_err(|e| e.0)
}

#[test]
fn the_example_says_the_defaults() {
    let config = check(EXAMPLE).unwrap();
    let default = Config::default();
    let (a, b) = (&config.settings, &default.settings);
    assert_eq!((a.clocks, a.limits, a.schedule, a.pool), (b.clocks, b.limits, b.schedule, b.pool));
    assert_eq!(a.conversations, b.conversations);
    assert_eq!((&a.sockets, &a.pass_through), (&b.sockets, &b.pass_through));
    assert_eq!((&a.costs, &config.usage), (&b.costs, &default.usage));
    assert_eq!((config.listen, config.admin, config.dial), (default.listen, default.admin, default.dial));
    assert_eq!(config.settings.organisations.len(), 1);
    assert!(config.check().is_ok());
}

#[test]
fn the_example_names_every_setting() {
    let table: toml::Table = EXAMPLE.parse().unwrap();
    for (name, keys) in [
        ("clocks", ClocksTable::KEYS),
        ("dial", DialTable::KEYS),
        ("limits", LimitsTable::KEYS),
        ("queue", QueueTable::KEYS),
        ("retry", RetryTable::KEYS),
        ("pool", PoolTable::KEYS),
        ("sockets", SocketsTable::KEYS),
    ] {
        let shown: BTreeSet<&str> = table[name].as_table().unwrap().keys().map(String::as_str).collect();
        assert_eq!(shown, keys.iter().copied().collect(), "[{name}]");
    }
    for key in [
        "address",
        "admin",
        "threads",
        "format",
        "level",
        "certificate",
        "key",
        "ca_file",
        "client_key",
        "tenant",
        "hash",
        "auth",
        "http",
        "transport",
        "env",
        "file",
        "value",
        "workspace",
        "reserves_output",
        "headers",
        "models",
        "requests_per_minute",
        "input_tokens_per_minute",
        "output_tokens_per_minute",
        "[[tenant]]",
        "[own_credentials]",
        "weight",
        "tokens_per_minute",
        "concurrent_streams",
        "band",
        "[conversations]",
        "[pass_through]",
        "[usage]",
        "[[price]]",
        "[tenant.budget]",
        "[redact]",
        "[[redact.patterns]]",
    ]
    .into_iter()
    .chain(ConversationsTable::KEYS.iter().copied())
    .chain(RedactTable::KEYS.iter().copied())
    .chain(PassThroughTable::KEYS.iter().copied())
    .chain([UsageTable::KEYS, PriceTable::KEYS, BudgetTable::KEYS].concat())
    {
        assert!(EXAMPLE.contains(key), "{key}");
    }
}

#[test]
fn every_file_is_looked_for_beside_the_configuration() {
    let text = "[tls]\ncertificate = \"f1\"\nkey = \"f2\"\nca_file = \"f3\"\n[conversations]\nfile = \"f4\"\n[usage]\nfile = \"f5\"\n[keys]\nfile = \"f6\"\n[own_credentials]\nproxy = { file = \"f7\" }\n[redact]\nscope_key = { file = \"f8\" }\nvault_keys = [{ id = 1, file = \"f9\" }]\n[[organisation]]\nname = \"a\"\nkeys = [{ file = \"f10\" }]\nproxy = { file = \"f11\" }\nheaders = { x = { file = \"f12\" } }\n[[tenant]]\nname = \"a\"\nredact = { scope_key = { file = \"f13\" } }\n";
    let mut file = File::of(&Places { path: Path::new("/etc/t/t.toml"), text }).unwrap();
    let found = |file: &mut File| {
        let mut all: Vec<PathBuf> = [&file.tls.certificate, &file.tls.key, &file.tls.ca_file, &file.conversations.file]
            .into_iter()
            .chain([&file.usage.file, &file.keys.file])
            .flatten()
            .cloned()
            .collect();
        all.extend(file.own_credentials.as_mut().and_then(|table| table.files()).cloned());
        all.extend(file.redact.files().into_iter().map(|path| path.clone()));
        all.extend(file.organisation[0].files().into_iter().map(|path| path.clone()));
        all.extend(file.tenant[0].files().into_iter().map(|path| path.clone()));
        all
    };
    let all = found(&mut file);
    assert_eq!(all.len(), text.matches("\"f").count());
    assert!(all.iter().all(|path| path.starts_with("/etc/t/")), "{all:?}");
    // One that is whole already, and one from where the command was started.
    assert_eq!(beside(Path::new("/etc/t/t.toml"), Path::new("/var/x")), Path::new("/var/x"));
    assert_eq!(beside(Path::new("t.toml"), Path::new("x")), std::env::current_dir().unwrap().join("x"));
}

#[test]
fn every_error_names_file_line_key_and_remedy() {
    for (text, want) in [
        ("[limits]\nbody_bytez = 1\n", "t.toml:2: body_bytez: unknown field `body_bytez`"),
        (
            "[limits]\n\nbody_bytes = 5\n",
            "t.toml:3: body_bytes: invalid type: integer `5`, expected a quantity with its unit",
        ),
        ("[clocks]\ngap = \"45\"\n", "t.toml:2: gap: `45` is not a length of time; write for example"),
        ("[clocks]\ngap = \"45 MiB\"\n", "t.toml:2: gap: `45 MiB` is not a length of time"),
        ("[limits]\nbody_bytes = \"1 GiB\"\n", "t.toml:2: limits.body_bytes: is over bodies_bytes"),
        ("[clocks]\n# x\ndrain = \"1 h\"\n", "t.toml:3: clocks.drain: is over 10 min"),
        ("[queue]\njitter = \"11 s\"\n", "t.toml:2: queue.jitter: is over 10 s"),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ env = \"NOPE\" }]\n",
            "t.toml:3: organisation.keys: the environment variable NOPE is not set",
        ),
        (
            "[[organisation]]\nname = \"a\"\nurl = \"ftp://x\"\nkeys = [{ value = \"k\" }]\n",
            "t.toml:3: organisation.url: `ftp://x` is not an upstream URL",
        ),
        (
            "[[organisation]]\nname = \"a\"\nhttp = \"3\"\nkeys = [{ value = \"k\" }]\n",
            "t.toml:3: http: unknown variant `3`, expected one of `auto`, `1.1`, `2`",
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\ntransport = \"tidegate\"\n",
            "t.toml:4: organisation.transport: needs the `url` of what speaks it",
        ),
        (
            "[[organisation]]\nname = \"a\"\ntransport = \"tidegate\"\nurl = \"https://x\"\nkeys = [{ value = \"k\" }]\n",
            "t.toml:4: organisation.url: `https://x` is not an upstream URL: it begins with neither ws:// nor wss://",
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\n[[organisation]]\nname = \"b\"\ntransport = \"prompt\"\nurl = \"ws://x/chat\"\nkeys = [{ value = \"k\" }]\n",
            "t.toml:6: organisation.transport: is \"prompt\", and others are not",
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\nheaders = { Authorization = \"x\" }\n",
            "t.toml:4: organisation.headers: `Authorization` is Tidegate's to write",
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\nheaders = { x-a = { env = \"NOPE\" } }\n",
            "t.toml:4: organisation.headers: the environment variable NOPE is not set",
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\nheaders = { x-a = \"two\\nlines\" }\n",
            "t.toml:4: organisation.headers: the value of `x-a` has to be",
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\nmodels = { \"m\" = \"\" }\n",
            "t.toml:4: organisation.models: a model's name has 1 to 256 characters",
        ),
        (
            "[pass_through]\npublic_url = \"claude.example.com\"\n",
            "t.toml:2: pass_through.public_url: is no address of ours; write for example",
        ),
        ("[limits]\nfile_bytes = \"0 B\"\n", "t.toml:2: limits.file_bytes: is zero: no file could be uploaded"),
        ("[pool]\nsocket_streams = 0\n", "t.toml:2: pool.socket_streams: is zero: no WebSocket could carry"),
        ("[pool]\n\nsocket_spares = 65\n", "t.toml:3: pool.socket_spares: is over 64"),
        ("[clocks]\nprobe = \"0 s\"\n", "t.toml:2: clocks.probe: is zero"),
        ("[clocks]\nsocket_ping = \"0 s\"\n", "t.toml:2: clocks.socket_ping: is zero"),
        ("[limits]\njournal_bytes = \"1 GiB\"\n", "t.toml:2: limits.journal_bytes: is over journals_bytes"),
        ("[limits]\ndurable_bytes = \"1 MiB\"\n", "t.toml:2: limits.durable_bytes: is under journal_bytes"),
        ("[sockets]\norigins = [\"app.example\"]\n", "t.toml:2: sockets.origins: `app.example` is no origin"),
        ("[sockets]\necho = true\nmodel = \"\"\n", "t.toml:3: sockets.model: is empty"),
        ("[queue]\nageing = \"5 s\"\nweight_normal = 0\n", "t.toml:3: queue.weight_normal: is zero"),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\n[[organisation]]\nname = \"b\"\nkeys = [{ value = \"k\" }]\n[organisation.limits.\"claude-opus-4\"]\nrequests_per_minute = 0\n",
            "t.toml:8: organisation.limits.claude-opus-4.requests_per_minute: is zero",
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\n[organisation.limits.default]\nrpm = 5\n",
            "t.toml:5: rpm: unknown field `rpm`",
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\n[organisation.workspace.lab.limits.default]\nrequests_per_minute = 5\n",
            "t.toml:1: organisation.workspace.lab: no key belongs to it; write",
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\", env = \"E\" }]\n",
            "t.toml:3: organisation.keys: each key comes from one of env, file and value",
        ),
        ("[own_credentials]\n\nurl = \"x\"\n", "t.toml:3: own_credentials.url: `x` is not an upstream URL"),
        ("[[tenant]]\nname = \"own\"\n", "t.toml:2: tenant.name: no [[client_key]] has this tenant"),
        ("[[tenant]]\nname = \"a\"\n", "t.toml:2: tenant.name: no [[client_key]] has this tenant"),
        ("[[tenant]]\nname = \"default\"\n[[tenant]]\nname = \"default\"\n", "t.toml:4: tenant.name: two tables"),
        ("[[tenant]]\nname = \"default\"\nweight = -1.0\n", "t.toml:3: tenant.weight: a weight is a number from"),
        (
            "[[tenant]]\nname = \"default\"\ntokens_per_minute = 0\n",
            "t.toml:3: tenant.tokens_per_minute: is zero: nothing would be served",
        ),
        ("[[tenant]]\nname = \"default\"\nband = \"high\"\n", "t.toml:3: tenant.band: a band is `interactive`"),
        ("[conversations]\nkeep_age = \"0 s\"\n", "t.toml:2: conversations.keep_age: is zero: nothing would be kept"),
        ("[conversations]\nkeep_conversations = 0\n", "t.toml:2: conversations.keep_conversations: is zero"),
        ("[conversations]\nkeep_age = \"90\"\n", "t.toml:2: keep_age: `90` is not a length of time"),
        ("[[tenant]]\nname = \"default\"\nkeep_bytes = \"0 B\"\n", "t.toml:3: tenant.keep_bytes: is zero"),
        ("[usage]\nkeep = \"30 d\"\n", "t.toml:2: usage.keep: is no number of days from 31 to 3660"),
        ("[usage]\nkeep = \"999 h\"\n", "t.toml:2: usage.keep: is no number of days"),
        (
            "[conversations]\nfile = \"a.db\"\n[usage]\nfile = \"a.db\"\n",
            "t.toml:4: usage.file: is the file of [conversations]",
        ),
        (
            "[[price]]\nmodel = \"m\"\ninput = \"1\"\noutput = \"2 USD\"\n",
            "t.toml:3: input: `1` is no amount; write for example \"500 USD\"",
        ),
        (
            "[[price]]\nmodel = \"m\"\ninput = 1.5\noutput = \"2 USD\"\n",
            "t.toml:3: input: invalid type: floating point `1.5`, expected a quantity with its unit in quotes, such as \"30 s\", \"32 MiB\", \"5 USD\"",
        ),
        (
            "[[price]]\nmodel = \"m\"\ninput = nan\noutput = \"2 USD\"\n",
            "t.toml:3: input: invalid type: floating point `NaN`, expected a quantity with its unit",
        ),
        (
            "[[price]]\nmodel = \"m\"\ninput = \"-1 USD\"\noutput = \"2 USD\"\n",
            "t.toml:3: input: `-1 USD` is no amount",
        ),
        (
            "[[tenant]]\nname = \"default\"\nbudget = { monthly = \"NaN USD\" }\n",
            "t.toml:3: budget: `NaN USD` is no amount",
        ),
        (
            "[[price]]\nmodel = \"m\"\ninput = \"1 USD\"\noutput = \"0.00000001 USD\"\n",
            "t.toml:4: price.output: is finer than a millionth of a dollar",
        ),
        (
            "[[price]]\nmodel = \"m\"\ninput = \"1 USD\"\noutput = \"2 USD\"\nbatch = \"0 %\"\n",
            "t.toml:5: batch: `0 %` is no share",
        ),
        (
            "[[price]]\nmodel = \"m\"\ninput = \"1 USD\"\noutput = \"2 USD\"\n[[price]]\nmodel = \"m\"\ninput = \"1 USD\"\noutput = \"2 USD\"\n",
            "t.toml:6: price.model: two tables have this model",
        ),
        (
            "[[tenant]]\nname = \"default\"\nbudget = { monthly = \"0 USD\" }\n",
            "t.toml:3: tenant.budget: is zero: nothing would be served",
        ),
        (
            "[own_credentials]\n[[tenant]]\nname = \"own\"\nbudget = { monthly = \"5 USD\" }\n",
            "t.toml:4: tenant.budget: is for those who use your money",
        ),
        (
            "[[tenant]]\nname = \"default\"\n[tenant.budget]\nmonthly = \"5 USD\"\nwarn_at = \"0.8\"\n",
            "t.toml:5: warn_at: `0.8` is no share; write a whole number from 1 to 100",
        ),
        (
            "[[tenant]]\nname = \"default\"\n[tenant.budget]\nmonthly = \"5 USD\"\nwhen_reached = \"stop\"\n",
            "t.toml:5: when_reached: unknown variant `stop`, expected one of `refuse`, `queue`, `warn`",
        ),
        ("[pool]\nhttp2_age = \"0 s\"\n", "t.toml:2: pool.http2_age: is zero"),
        ("[[client_key]]\ntenant = \"a\"\nhash = \"tg_secret\"\n", "t.toml:3: client_key.hash: a key hash is"),
        ("[listen]\naddress = \"here\"\n", "t.toml:2: address: "),
        ("[limits\n", "t.toml:1: "),
        ("[tls]\ncertificate = \"a.pem\"\n", "t.toml:2: tls.certificate: stands alone; TLS also needs tls.key"),
        (
            "[redact]\npolicy = \"hide\"\n",
            "t.toml:2: policy: unknown variant `hide`, expected one of `off`, `report`, `mask`, `block`",
        ),
        (
            "[redact]\n[redact.kinds]\nfone = \"mask\"\n",
            "t.toml:3: redact.kinds.fone: there is no such kind; there are phone,",
        ),
        (
            "[[redact.patterns]]\nname = \"a\"\nregex = 'x'\n[[redact.patterns]]\nname = \"b\"\nregex = '('\n",
            "t.toml:6: redact.patterns.regex: pattern `b` is no regular expression that can be used: unclosed group",
        ),
        (
            "[[redact.patterns]]\nname = \"a\"\nregex = 'x*'\n",
            "t.toml:3: redact.patterns.regex: pattern `a` matches the empty text",
        ),
        (
            "[[redact.patterns]]\nname = \"a\"\nregex = 'x'\n[[redact.patterns]]\nname = \"a\"\nregex = 'y'\n",
            "t.toml:5: redact.patterns.name: two patterns have this name",
        ),
        (
            "[redact]\nallow_patterns = ['(?=x)y']\n",
            "t.toml:2: redact.allow_patterns: pattern `(?=x)y` is no regular expression that can be used: look-around",
        ),
        ("[redact]\nallow = [\"@\"]\n", "t.toml:2: redact.allow: `@` is no value"),
        (
            "[redact]\nscope_key = { env = \"NOPE\" }\nvault_keys = [{ id = 1, env = \"NOPE\" }]\n",
            "t.toml:2: redact.scope_key: the environment variable NOPE is not set",
        ),
        (
            "[redact]\nscope_key = { value = \"12\" }\nvault_keys = [{ id = 1, value = \"12\" }]\n",
            "t.toml:2: redact.scope_key: is no key: a key is 64 hexadecimal digits; make a file with one by `tidegate key vault",
        ),
        ("[redact]\nscope_key = { value = \"12\" }\n", "t.toml:2: redact.scope_key: stands alone"),
        ("[redact]\nvault_keys = [{ id = 1, value = \"12\" }]\n", "t.toml:2: redact.vault_keys: stand alone"),
        (
            "[[tenant]]\nname = \"default\"\n[tenant.redact]\npolicy = \"mask\"\nexplain = false\n",
            "t.toml:5: tenant.redact.explain: is no tenant's own: it stands in [redact]",
        ),
        (
            "[[tenant]]\nname = \"default\"\n[tenant.redact.kinds]\nx = \"mask\"\n",
            "t.toml:4: tenant.redact.kinds.x: there is no such kind",
        ),
        ("[tls]\n\nkey = \"a.pem\"\n", "t.toml:3: tls.key: stands alone; TLS also needs tls.certificate"),
    ] {
        let got = check(text).unwrap_err();
        assert!(got.starts_with(want), "{got}\nwanted {want}");
    }
}

#[test]
fn what_is_kept_is_read_for_all_and_for_one_tenant() {
    let text = "[conversations]\nkeep_age = \"90 d\"\nkeep_bytes = \"1 GiB\"\ncompact_every = \"0 s\"\n[[tenant]]\nname = \"default\"\nkeep_age = \"1 h\"\nkeep_conversations = 5\n";
    let settings = check(text).unwrap().settings;
    let hours = |n: u64| Some(std::time::Duration::from_secs(n * 3_600));
    let keep = tidegate_gateway::Keep { age: hours(90 * 24), conversations: None, bytes: Some(1 << 30) };
    assert_eq!((settings.conversations.keep, settings.conversations.compact_every.is_zero()), (keep, true));
    let own = tidegate_gateway::Keep { age: hours(1), conversations: Some(5), bytes: None };
    assert_eq!(settings.tenants[0].keep, own);
}

#[test]
fn prices_and_budgets_are_read_over_what_is_built_in() {
    use tidegate_observe::{Budget, Reached, Unpriced};
    let text = r#"
[usage]
file = "usage.db"
keep = "31 d"
[[price]]
model = "house"
input = "1.50 USD"
output = "6 USD"
[[price]]
model = "claude-opus-5-5"
input = "0.0028 USD"
output = "1 USD"
cache_read = "0.5 USD"
cache_write_5m = "0 USD"
cache_write_1h = "7 USD"
batch = "25 %"
fast = true
[[tenant]]
name = "default"
[tenant.budget]
monthly = "12.34 USD"
warn_at = "50 %"
when_reached = "queue"
unpriced = "refuse"
"#;
    let config = check(text).unwrap();
    let prices = &config.settings.costs.prices;
    let numbers = |model: &str, fast| {
        let p = prices.of(model, fast).unwrap();
        ([p.input, p.output, p.cache_read, p.cache_write_5m, p.cache_write_1h], p.batch_percent)
    };
    assert_eq!(numbers("house", false), ([1_500_000, 6_000_000, 150_000, 1_875_000, 3_000_000], 50));
    assert_eq!(numbers("claude-opus-5-5", true), ([2_800, 1_000_000, 500_000, 0, 7_000_000], 25));
    assert_eq!(numbers("claude-opus-5-5", false).0[0], 4_000_000, "the others stay");
    let monthly = "12.34 USD".parse().unwrap();
    let want = Budget { monthly, warn_percent: 50, reached: Reached::Queue, unpriced: Unpriced::Refuse };
    assert_eq!(config.settings.tenants[0].budget, Some(want));
    assert_eq!(
        (config.usage, config.settings.costs.kept_days),
        (Some(beside(Path::new("t.toml"), Path::new("usage.db"))), 31)
    );
    let text = "[[tenant]]\nname = \"default\"\nbudget = { monthly = \"5 USD\" }\n";
    let usual = check(text).unwrap().settings.tenants[0].budget.unwrap();
    assert_eq!((usual.warn_percent, usual.reached, usual.unpriced), (80, Reached::Refuse, Unpriced::Serve));
}

#[test]
fn no_error_shows_a_secret() {
    for text in [
        "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"sk-ant-secret\", extra = 1 }]\n",
        "[[organisation]]\nname = \"a\"\nkeys = [{ valu = \"sk-ant-secret\" }]\n",
        "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"sk-ant-secret\nx\" }]\n",
        "[[client_key]]\ntenant = \"a\"\nhash = \"sk-ant-secret\"\n",
    ] {
        let got = check(text).unwrap_err();
        assert!(!got.contains("sk-ant-secret"), "{got}");
    }
}

#[test]
fn the_world_is_not_served_without_keys() {
    let mut config = check("").unwrap();
    config.use_upstream(API_URL, "k", &|_| None).unwrap();
    assert!(config.check().is_ok());
    config.listen = "0.0.0.0:4600".parse().unwrap();
    assert!(config.check().unwrap_err().to_string().contains("tidegate key new"));
}

#[test]
fn limits_workspaces_and_tenants_are_read() {
    let config = check(
        r#"
[[organisation]]
name = "north"
keys = [{ value = "a" }, { value = "b", workspace = "lab" }, { value = "c", workspace = "desk" }]
reserves_output = true
limits = { default = { requests_per_minute = 1000 }, "claude-opus-4" = { output_tokens_per_minute = 8000 } }
[organisation.workspace.lab.limits.default]
input_tokens_per_minute = 30000

[[tenant]]
name = "default"
weight = 2.5
requests_per_minute = 60
concurrent_streams = 4
band = "background"
"#,
    )
    .unwrap();
    let north = &config.settings.organisations[0];
    assert!(north.reserves_output);
    assert_eq!(north.limits["default"].requests, Some(1000));
    assert_eq!(north.limits["claude-opus-4"].output_tokens, Some(8000));
    let names: Vec<_> = north.workspaces.iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["lab", "desk"]);
    assert_eq!(north.workspaces[0].limits["default"].input_tokens, Some(30_000));
    let of_key: Vec<_> = north.lane_workspaces.iter().map(|w| w.map(|w| w.0)).collect();
    assert_eq!(of_key, [None, Some(0), Some(1)]);
    let tenant = &config.settings.tenants[0];
    assert_eq!((tenant.rules.weight, tenant.rules.requests, tenant.rules.tokens), (2.5, Some(60), None));
    assert_eq!((tenant.rules.concurrent, tenant.band.map(|b| b.name())), (Some(4), Some("background")));
}

#[test]
fn redaction_is_read_for_all_and_by_tenant() {
    use tidegate_redact::kind::Kind;
    use tidegate_redact::rules::{Policy, Style, Unscannable};
    let text = r#"
[redact]
policy = "mask"
style = "tag"
kinds = { ip = "report", name = "block" }
allow = ["@example.org"]
[[redact.patterns]]
name = "order"
regex = 'ORD-\d+'
[[client_key]]
tenant = "a"
hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
[[client_key]]
tenant = "b"
hash = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
[[client_key]]
tenant = "c"
hash = "sha256:0000000000000000000000000000000000000000000000000000000000000002"
[[tenant]]
name = "a"
redact = { policy = "block", unscannable = "pass" }
[[tenant]]
name = "b"
redact = { kinds = { email = "off" }, style = "token" }
[[tenant]]
name = "c"
redact = { allow = [] }
"#;
    let mut redact = check(text).unwrap().redact;
    let says = |redact: &Redact, tenant: Option<&str>| {
        [Kind::Phone, Kind::Ip, Kind::Name, Kind::Email].map(|kind| redact.rules(tenant).policy(kind))
    };
    use Policy::{Block, Mask, Off, Report};
    assert_eq!(says(&redact, None), [Mask, Report, Block, Mask]);
    assert_eq!(says(&redact, Some("a")), [Block, Block, Off, Block]);
    assert_eq!(says(&redact, Some("b")), [Mask, Mask, Off, Off]);
    assert_eq!(says(&redact, Some("c")), [Mask, Report, Block, Mask]);
    assert_eq!(redact.rules(Some("a")).unscannable, Unscannable::Pass);
    assert_eq!((redact.rules(None).style, redact.rules(Some("b")).style), (Style::Tag, Style::Token));
    let allowed = |tenant| redact.rules(tenant).looking.allow.len();
    assert_eq!((allowed(Some("a")), allowed(Some("c"))), (1, 0));
    assert_eq!(redact.rules(Some("b")).looking.patterns.len(), 1);
    assert!(redact.makes_tokens());

    redact.use_policy(Policy::Report);
    assert_eq!(says(&redact, None), [Report, Report, Block, Report]);
    assert_eq!(says(&redact, Some("a")), [Block, Block, Off, Block]);
    assert_eq!(says(&redact, Some("b")), [Report, Report, Off, Off]);
    redact.use_policy(Policy::Off);
    assert_eq!(says(&redact, None), [Off; 4]);
    assert_eq!(says(&redact, Some("a")), [Off; 4]);
    assert!(!redact.makes_tokens());
}

#[test]
fn keys_of_redaction_are_read_and_never_shown() {
    let (scope, old, new) = ("ab".repeat(32), "cd".repeat(32), "ef".repeat(32));
    let text = format!(
        "[redact]\npolicy = \"mask\"\nscope_key = {{ value = \"{scope}\" }}\nvault_keys = [{{ id = 2, value = \"{new}\" }}, {{ id = 1, value = \"{old}\" }}]\n"
    );
    let mut config = check(&text).unwrap();
    config.use_upstream(API_URL, "k", &|_| None).unwrap();
    config.conversations = Some("c.db".into());
    assert!(config.check().is_ok() && !config.redact.needs_passing_keys());
    assert_eq!(config.redact.scope_key().unwrap()[0], 0xab);
    let redaction = config.redact.redaction(None).unwrap();
    assert!(redaction.makes_tokens() && !redaction.lacks_keys());
    let shown = format!("{config:?} {redaction:?}");
    for key in [&scope, &old, &new] {
        assert!(!shown.contains(&key[..8]), "{shown}");
    }
    for (what, want) in [
        ("{ id = 1, value = \"@\" }, { id = 1, value = \"@\" }", "redact.vault_keys: two have the id 1"),
        ("{ value = \"@\" }", "redact.vault_keys: each has an `id`"),
        ("{ id = 1, value = \"@x\" }", "redact.vault_keys: is no key"),
    ] {
        let text =
            format!("[redact]\nscope_key = {{ value = \"{scope}\" }}\nvault_keys = [{}]\n", what.replace('@', &old));
        let got = check(&text).unwrap_err();
        assert!(got.contains(want) && !got.contains(&old[..8]), "{got}");
    }
}

#[test]
fn behind_the_simulator_nothing_is_missed_but_what_organisations_would_need() {
    let folder = std::env::temp_dir().join(format!("tidegate-simulated-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let load = |text: &str| {
        let path = folder.join("tidegate.toml");
        std::fs::write(&path, text).unwrap();
        Config::load_from(&path, &super::OfMachine(&|_| None), true)
    };
    let organisation =
        "[[organisation]]\nname = \"north\"\nkeys = [{ env = \"NORTH\" }]\nheaders = { x = { env = \"X\" } }\n";
    let config = load(organisation).unwrap();
    let proxy = config.settings.organisations[0].lanes[0].target.proxy.as_ref();
    assert!(proxy.is_none(), "HTTPS_PROXY is not set, and is not taken for a secret: {proxy:?}");
    load(&format!("{organisation}proxy = {{ env = \"PROXY\" }}\n")).unwrap();
    let keys = "[redact]\nscope_key = { env = \"SCOPE\" }\nvault_keys = [{ id = 1, env = \"VAULT\" }]\n";
    let refused = load(&format!("{organisation}{keys}")).unwrap_err().to_string();
    assert!(refused.contains("the environment variable SCOPE is not set"), "{refused}");
    std::fs::remove_dir_all(&folder).unwrap();
}
