//! Named documents, and what is said of wrong ones.

use super::*;

#[test]
fn every_named_scenario_reads_and_explains_itself_in_its_first_line() {
    for (name, text) in NAMED {
        let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let first = text.lines().next().unwrap();
        assert_eq!(first, format!("about = \"{}\"", scenario.about), "{name}");
        assert!(scenario.about.len() < 120 && scenario.about.ends_with('.'), "{name}");
    }
    assert!(Scenario::named("calm").unwrap().faults.is_empty());
    assert!(Scenario::named("storm").is_none());
}

#[test]
fn an_empty_document_is_calm() {
    let scenario = Scenario::parse("").unwrap();
    assert_eq!((scenario.pace, scenario.tier), (Pace::default(), Tier::Scale));
}

#[test]
fn errors_name_the_line_and_the_key() {
    let check = |text: &str, says: &[&str]| {
        let error = Scenario::parse(text).unwrap_err().to_string();
        for says in says {
            assert!(error.contains(says), "{error}");
        }
    };
    check("[pace]\nspeed = 3", &["line 2", "speed", "unknown field"]);
    check("[pace]\nevent = \"20\"", &["line 2", "event", "\"500 ms\""]);
    check("[pace]\nevent = 20", &["line 2", "event"]);
    check("[pace]\nchars = \"many\"", &["line 2", "chars", "20-240"]);
    check("[quota]\ntier = \"gold\"", &["line 2", "tier", "scale"]);
    check("[[fault]]\ndo = [\"explode\"]", &["line 2", "do", "not a fault"]);
    check("[[fault]]\nprobability = 0.5", &["missing field `do`"]);
    check("[[fault]]\ndo = []\nprobability = 2.0", &["probability", "from 0 to 1"]);
    check("[[fault]]\ndo = []\nperiod = \"1 min\"", &["period", "until"]);
    check("[[organisation]]\nname = \"a\"\nkeys = [\"k\"]\nrevoked = [\"k\"]", &["`k` is listed twice"]);
    check(
        "[[organisation]]\nname = \"a\"\n[organisation.limits.gpt]\nrequests_per_minute = 1\ninput_tokens_per_minute = 1\noutput_tokens_per_minute = 1",
        &["gpt", "opus-5-5"],
    );
    check("[quota]\nheaders = \"late\"", &["line 2", "headers", "`admission`", "`first-byte`"]);
    check("[quota]\ncharge_cancelled = \"half\"", &["line 2", "`produced`", "`whole`", "`nothing`"]);
    check("[quota]\noutput = 3", &["line 2", "output"]);
    check("[quota]\nestimate_error_percent = 101", &["[quota] estimate_error_percent: at most 100"]);
    check("[quota]\nremaining_error_percent = 101", &["[quota] remaining_error_percent: at most 100"]);
    check("[quota]\nconnections = 0", &["[quota] connections", "1 or more"]);
    check("[quota.ramp]\nfloor_requests_per_minute = 5", &["[quota.ramp] floor_requests_per_minute", "6 or more"]);
    check("[quota.ramp]\nfactor = 0.5", &["[quota.ramp] factor", "from 1 to 1000"]);
    check("[continuation]\nrepeat = 1.5", &["[continuation] repeat: from 0 to 1"]);
    check("[continuation]\nrepeat_chars = 1001", &["[continuation] repeat_chars: at most 1000"]);
    check("[continuation]\nsorry = 1.0", &["line 2", "sorry", "unknown field"]);
    check("times = 0.0", &["times: above 0"]);
    check("[cache]\nentries_max = 0", &["[cache] entries_max", "from 1 to 1000000"]);
    check("[cache.minimum_tokens]\ngpt = 3", &["[cache.minimum_tokens] gpt", "not the id of a model"]);
}

#[test]
fn errors_of_the_timeline_name_the_table_and_the_key() {
    let acme = "[[organisation]]\nname = \"acme\"\nkeys = [\"k\"]\ntier = \"first\"\n";
    let check = |text: &str, says: &[&str]| {
        let error = Scenario::parse(&format!("{acme}{text}")).unwrap_err().to_string();
        for says in says {
            assert!(error.contains(says), "{error}");
        }
    };
    check("[[change]]\nat = \"1 s\"", &["[[change]] factor", "nothing changes"]);
    check("[[change]]\nfactor = 2.0", &["missing field `at`"]);
    check("[[change]]\nat = \"1 s\"\nfactor = -1.0", &["[[change]] factor: from 0 to 1000"]);
    check("[[change]]\nat = \"1 s\"\nfactor = 2\norganisation = \"blue\"", &["[[change]] organisation", "`blue`"]);
    check("[[change]]\nat = \"1 s\"\nfactor = 2\nworkspace = \"lab\"", &["[[change]] workspace", "`lab`"]);
    check("[[change]]\nat = \"1 s\"\nfactor = 2\nclasses = [\"gpt\"]", &["[[change]] classes", "`gpt`", "opus-5-5"]);
    check("[[consumer]]\npercent = 101", &["[[consumer]] percent: from 1 to 100"]);
    check("[[consumer]]\npercent = 3\nevery = \"1 ms\"", &["[[consumer]] every: 10 ms"]);
    check("[[consumer]]\npercent = 3\nfrom = \"9 s\"\nuntil = \"9 s\"", &["[[consumer]] until", "after `from`"]);
    check("[[spend_limit]]\ndollars = -1", &["[[spend_limit]] dollars"]);
    check("[[spend_limit]]\ndollars = 1\nkind = \"soft\"", &["`enforced`", "`user`"]);
    check("[[key_outage]]\nkey = \"other\"", &["[[key_outage]] key", "`other`"]);
    check("[[key_outage]]\nkey = \"k\"\nuntil = \"0 s\"", &["[[key_outage]] until"]);
    check(&"[[key_outage]]\nkey = \"k\"\n".repeat(65), &["[[key_outage]]: at most 64"]);
    check("[[organisation.workspace]]\nkeys = []", &["[[organisation.workspace]] name"]);
    check("[[organisation.workspace]]\nname = \"a\"\nkeys = [\"k\"]", &["`k` is listed twice"]);
    check(&"[[organisation.workspace]]\nname = \"a\"\n".repeat(2), &["`a` is there twice"]);
    check(
        "[[organisation.workspace]]\nname = \"a\"\n[organisation.workspace.limits.opus-5]\nrequests_per_minute = 51",
        &[
            "[organisation.workspace.limits.opus-5] requests_per_minute",
            "51 is more than the 50 of organisation `acme`",
        ],
    );
}

#[test]
fn the_keys_of_all_organisations_and_workspaces_are_listed_in_order() {
    let text = "[[organisation]]\nname = \"a\"\nkeys = [\"a1\", \"a2\"]\nrevoked = [\"a0\"]\n[[organisation.workspace]]\nname = \"lab\"\nkeys = [\"a3\"]\n[[organisation]]\nname = \"b\"\nkeys = [\"b1\"]";
    let scenario = Scenario::parse(text).unwrap();
    let listed: Vec<_> = scenario.callers().map(|c| (c.organisation, c.workspace, c.key)).collect();
    assert_eq!(listed, [("a", None, "a1"), ("a", None, "a2"), ("a", Some("lab"), "a3"), ("b", None, "b1")]);
    assert_eq!(Scenario::calm().callers().count(), 0);
}
