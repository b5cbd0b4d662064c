//! Masking a request: what is replaced, what stays as it was byte for byte, and what refuses it.

use tidegate_redact::detect::Scratch;
use tidegate_redact::kind::Kind;
use tidegate_redact::mask::{Filter, Masked, Refusal, Scopes};
use tidegate_redact::restore::{self, Live};
use tidegate_redact::rules::{Policy, Rules, Style, Unscannable};
use tidegate_redact::vault::{ScopeKey, Vault};

fn vault(conversation: Option<&str>) -> Vault {
    Vault::new(ScopeKey::derive(&[9; 32], "acme", conversation))
}

fn filter(change: impl FnOnce(&mut Rules)) -> Filter {
    let mut rules = Rules::all(Policy::Mask);
    change(&mut rules);
    Filter::new(rules).expect("a filter")
}

fn mask(filter: &Filter, vault: &mut Vault, body: &str) -> Result<Masked, Refusal> {
    filter.mask_request(body.as_bytes(), Some(&mut Scopes { own: vault, shared: None }), &mut Scratch::default())
}

/// The masked body as text; the body itself if nothing was replaced.
fn masked(filter: &Filter, vault: &mut Vault, body: &str) -> String {
    let masked = mask(filter, vault, body).expect("it passes");
    masked.bytes.map_or_else(|| body.to_owned(), |bytes| String::from_utf8(bytes).expect("text"))
}

fn ask(text: &str) -> String {
    format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

#[test]
fn only_what_is_found_changes() {
    let body = ask(r"call 138 0013 8000 \u4f60\u597d \/ \ud83d\ude00").replace("\"m\"", "\"m\" , \"x\" :  1.50e2");
    let mut vault = vault(None);
    let out = masked(&filter(|_| {}), &mut vault, &body);
    let token = vault.known("138 0013 8000").expect("a token");
    assert_eq!(out, body.replace("138 0013 8000", token.as_str()));
    assert_eq!(mask(&filter(|_| {}), &mut vault, &ask("nothing here")).expect("passes").bytes, None);
}

#[test]
fn every_text_that_a_model_gets_is_looked_through() {
    let places = [
        r#"{"system":"@"}"#,
        r#"{"system":[{"type":"text","text":"@"}]}"#,
        r#"{"messages":[{"role":"user","content":"@"}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"@"}]}]}"#,
        r#"{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":{"type":"@"}}]}]}"#,
        r#"{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":{"@":1}}]}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"@"}]}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"@"}]}]}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"document","title":"@","source":{"type":"url2"}}]}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"@"}}]}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"content","content":[{"type":"text","text":"@"}]}}]}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"search_result","source":"@","title":"t","content":[]}]}]}"#,
        r#"{"metadata":{"user_id":"@"}}"#,
        r#"{"metadata":{"user_id":"{\"mail\":\"@\"}"}}"#,
        r#"{"stop_sequences":["@"]}"#,
        r#"{"tools":[{"name":"n","description":"@","input_schema":{"type":"object"}}]}"#,
        r#"{"tools":[{"name":"n","input_schema":{"properties":{"a":{"type":"string","description":"@","enum":["@"]}}}}]}"#,
        r#"{"requests":[{"custom_id":"bob@x.cn","params":{"messages":[{"role":"user","content":"@"}]}}]}"#,
        r#"{"a_field_that_is_newer":{"deep":["@"]}}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"newer_block","words":"@"}]}]}"#,
    ];
    for place in places {
        let body = place.replace("\"@\"", "\"bob@example.com\"").replace("\\\"@\\\"", "\\\"bob@example.com\\\"");
        let mut vault = vault(None);
        let out = masked(&filter(|_| {}), &mut vault, &body);
        let token = vault.known("bob@example.com").unwrap_or_else(|| panic!("nothing found in {place}"));
        assert_eq!(out, body.replace("bob@example.com", token.as_str()));
    }
}

#[test]
fn a_values_own_name_says_what_it_is_and_numbers_are_looked_at() {
    let ask = |input: &str| {
        format!(
            r#"{{"messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"n","input":{input}}}]}}]}}"#
        )
    };
    let filter = filter(|_| {});
    let mut vault = vault(None);
    let out = masked(
        &filter,
        &mut vault,
        &ask(r#"{"passport_no":"E12345678","x":{"ssn":[536904399, 1.5]},"mobile":13800138000}"#),
    );
    let token = |value: &str| vault.known(value).unwrap_or_else(|| panic!("no token for {value}"));
    let (passport, ssn, mobile) = (token("E12345678"), token("536904399"), token("13800138000"));
    assert_eq!(
        out,
        ask(&format!(r#"{{"passport_no":"{passport:?}","x":{{"ssn":["{ssn:?}", 1.5]}},"mobile":"{mobile:?}"}}"#))
    );
    let plain = ask(r#"{"x":"E12345678","y":536904399,"order":13800138000}"#);
    let mut other = Vault::new(ScopeKey::derive(&[9; 32], "acme", Some("other")));
    assert_eq!(masked(&filter, &mut other, &plain), plain, "without such a name");
}

#[test]
fn the_words_of_the_api_are_left_alone() {
    let bodies = [
        r#"{"model":"13800138000"}"#,
        r#"{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"13800138000","name":"n","input":{}}]}]}"#,
        r#"{"messages":[{"role":"assistant","content":[{"type":"redacted_thinking","data":"13800138000"}]}]}"#,
        r#"{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"13800138000","signature":"13800138000"}]}]}"#,
        r#"{"mcp_servers":[{"type":"url","url":"https://x","authorization_token":"ghp_0123456789abcdefghijABCDEFGHIJ012345"}]}"#,
        r#"{"tools":[{"name":"n","input_schema":{"properties":{"p13800138000":{"type":"string","pattern":"13800138000"}}}}]}"#,
    ];
    for body in bodies {
        assert_eq!(masked(&filter(|_| {}), &mut vault(None), body), body);
    }
}

#[test]
fn what_comes_back_becomes_the_same_bytes() {
    let filter = filter(|_| {});
    let mut vault = vault(None);
    let first =
        ask(r#"护照号 E12345678, mail a\u0040b.cn, 手机 １３８００１３８０００, key \"postgres://u:p\\w1@h/x\""#);
    let sent = masked(&filter, &mut vault, &first);
    assert!(vault.len() >= 3, "{sent}");
    let live = Live::of([&vault]);
    let shown = String::from_utf8(restore::message(&live, sent.as_bytes()).expect("JSON")).expect("text");
    assert!(shown.contains("E12345678") && shown.contains("１３８００１３８０００"));
    assert_eq!(masked(&filter, &mut vault, &shown), sent);
    // Without the word that told it the first time.
    let token = vault.known("E12345678").expect("a token");
    assert_eq!(masked(&filter, &mut vault, &ask("so E12345678?")), ask(&format!("so {token:?}?")));
    assert_eq!(masked(&filter, &mut vault, &sent), sent, "what is masked stays as it is");
}

#[test]
fn what_is_told_once_is_masked_wherever_it_stands() {
    let filter = filter(|_| {});
    let mut vault = vault(None);
    let out = masked(&filter, &mut vault, &ask("is E12345678 yours? my passport: E12345678"));
    let token = vault.known("E12345678").expect("a token");
    assert_eq!(out, ask(&format!("is {token:?} yours? my passport: {token:?}")));
    let tags = self::filter(|rules| rules.style = Style::Tag);
    let out = masked(&tags, &mut self::vault(None), &ask("is E12345678 yours? my passport: E12345678"));
    assert_eq!(out, ask("is [PASSPORT] yours? my passport: [PASSPORT]"));
}

#[test]
fn thinking_is_taken_back_byte_for_byte_and_nothing_else_in_it() {
    let filter = filter(|_| {});
    let mut vault = vault(None);
    masked(&filter, &mut vault, &ask("call 13800138000"));
    let token = vault.known("13800138000").expect("a token");
    let thought = |text: &str| {
        format!(
            r#"{{"messages":[{{"role":"assistant","content":[{{"type":"thinking","thinking":"{text}","signature":"s"}}]}}]}}"#
        )
    };
    let sent = thought(&format!("x{token:?}7 and 13900139000"));
    let shown = restore::message(&Live::of([&vault]), sent.as_bytes()).expect("JSON");
    let shown = String::from_utf8(shown).expect("text");
    assert_eq!(shown, thought("x138001380007 and 13900139000"));
    assert_eq!(masked(&filter, &mut vault, &shown), sent);
}

#[test]
fn a_refusal_names_kinds_and_places_and_no_value() {
    let block = filter(|rules| rules.policies[Kind::Phone.index()] = Policy::Block);
    let body = ask("mail a@b.cn, call 13800138000");
    let refusal = mask(&block, &mut vault(None), &body).expect_err("it is refused");
    assert_eq!(refusal, Refusal::Blocked(vec![(Kind::Phone, "messages.0.content".to_owned())]));
    assert_eq!(refusal.to_string(), "the request contains data that may not be sent: phone at messages.0.content");
    let key =
        r#"{"messages":[{"role":"user","content":[{"type":"tool_use","input":{"13800138000":{"x":"13900139000"}}}]}]}"#;
    let refusal = mask(&block, &mut vault(None), key).expect_err("it is refused");
    assert!(!refusal.to_string().contains("13800138000"), "{refusal}");
}

#[test]
fn what_cannot_be_looked_into_has_its_own_policy() {
    let bodies = [
        r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aGVsbG8="}}"#,
        r#"{"type":"document","source":{"type":"url","url":"https://example.com/a.pdf"}}"#,
        r#"{"type":"document","source":{"type":"file","file_id":"file_1"}}"#,
        r#"{"type":"container_upload","file_id":"file_1"}"#,
        r#"{"type":"tool_result","tool_use_id":"t","content":[{"type":"image","source":{"data":"aGVsbG8=","type":"base64"}}]}"#,
    ];
    for block in bodies {
        let body = format!(r#"{{"messages":[{{"role":"user","content":[{block}]}}]}}"#);
        let refusal = mask(&filter(|_| {}), &mut vault(None), &body).expect_err("it is refused");
        assert!(matches!(&refusal, Refusal::Unscannable(places) if places.len() == 1), "{refusal:?}");
        let passed =
            mask(&filter(|rules| rules.unscannable = Unscannable::Pass), &mut vault(None), &body).expect("passes");
        assert_eq!((passed.bytes, passed.report.unscannable), (None, 1), "{block}");
        let report = Filter::new(Rules::all(Policy::Report)).expect("a filter");
        assert!(mask(&report, &mut vault(None), &body).is_ok(), "a report blocks nothing");
    }
}

#[test]
fn a_body_of_nothing_but_members_or_levels_is_walked_through_once() {
    let filter = filter(|rules| rules.unscannable = Unscannable::Pass);
    let members =
        format!(r#"{{"messages":[{{"content":[{{{}"a":"bob@example.com"}}]}}]}}"#, r#""k":1,"#.repeat(200_000));
    let levels = format!(r#"{{"messages":[{{"content":{}[]{}}}]}}"#, r#"[{"content":"#.repeat(50), "}]".repeat(50));
    for body in [members, levels] {
        #[allow(clippy::disallowed_methods, reason = "a test measures the machine's own time")]
        let start = std::time::Instant::now();
        masked(&filter, &mut vault(None), &body);
        assert!(start.elapsed().as_secs() < 5, "a second at most, and time for a busy machine");
    }
}

#[test]
fn policies_are_each_kinds_own() {
    let text = "mail a@b.cn, call 13800138000, from 8.8.8.8, 536-90-4399";
    let mixed = filter(|rules| {
        rules.policies[Kind::Email.index()] = Policy::Off;
        rules.policies[Kind::Phone.index()] = Policy::Report;
        rules.style = Style::Tag;
    });
    let out = mixed.mask_request(ask(text).as_bytes(), None, &mut Scratch::default()).expect("it passes");
    let want = ask("mail a@b.cn, call 13800138000, from [IP], [SSN]");
    assert_eq!(out.bytes.map(|b| String::from_utf8(b).expect("text")), Some(want));
    assert_eq!((out.report.found[Kind::Email.index()], out.report.found[Kind::Phone.index()]), (0, 1));
    assert_eq!((out.report.masked[Kind::Phone.index()], out.report.masked[Kind::Ip.index()]), (0, 1));
    let off = Filter::new(Rules::default()).expect("a filter");
    assert_eq!(off.mask_request(b"no json", None, &mut Scratch::default()).expect("off").bytes, None);
}

#[test]
fn a_failure_is_never_a_pass() {
    let tokens = filter(|_| {});
    for body in ["{", "[1,", "{\"a\":\"\u{1}", "\"x\\"] {
        assert_eq!(mask(&tokens, &mut vault(None), body).expect_err(body), Refusal::NotJson);
    }
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    assert_eq!(mask(&tokens, &mut vault(None), &deep).expect_err("deep"), Refusal::NotJson);
    let body = ask("13800138000");
    assert_eq!(tokens.mask_request(body.as_bytes(), None, &mut Scratch::default()), Err(Refusal::NoVault));
    assert_eq!(tokens.mask_request(b"{\"a\":\"\xff\"}", None, &mut Scratch::default()), Err(Refusal::NotJson));
}

#[test]
fn what_is_shared_by_conversations_has_the_tenants_tokens() {
    let filter = filter(|_| {});
    let body = r#"{"system":"help@acme.com","messages":[{"role":"user","content":"bob@acme.com, help@acme.com"}]}"#;
    let mut tenant = vault(None);
    let mut run = |conversation: &str| {
        let mut own = vault(Some(conversation));
        let mut scopes = Scopes { own: &mut own, shared: Some(&mut tenant) };
        let out = filter.mask_request(body.as_bytes(), Some(&mut scopes), &mut Scratch::default()).expect("passes");
        assert_eq!(own.len(), 1);
        String::from_utf8(out.bytes.expect("masked")).expect("text")
    };
    let (a, b) = (run("a"), run("b"));
    let system = |body: &str| body.split(',').next().map(str::to_owned);
    assert_eq!(system(&a), system(&b), "so that the prefix stays cached");
    assert_ne!(a, b, "conversations cannot be linked");
    assert_eq!(tenant.len(), 1);
}

#[test]
fn what_threads_share_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Filter>();
    shared::<Live>();
    sent::<restore::StreamRestorer>();
    sent::<Vault>();
}

#[test]
fn looking_through_finds_what_masking_replaces_at_its_place() {
    let filter = filter(|rules| {
        rules.policies[Kind::Email.index()] = Policy::Report;
        rules.policies[Kind::Ip.index()] = Policy::Block;
        rules.style = Style::Tag;
    });
    let text = "call 138 0013 8000 or a@example.org, from 8.8.8.8; again 138 0013 8000";
    let looked = filter.look_through_text(text, None, &mut Scratch::default()).expect("looked");
    let told: Vec<_> =
        looked.sightings.iter().map(|s| (&text[s.span.clone()], s.kind, s.policy, s.instead.as_deref())).collect();
    let phone = ("138 0013 8000", Kind::Phone, Policy::Mask, Some("[PHONE]"));
    let mail = ("a@example.org", Kind::Email, Policy::Report, None);
    assert_eq!(told, [phone, mail, ("8.8.8.8", Kind::Ip, Policy::Block, None), phone]);
    let body = r#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://x.y/z"}},{"type":"tool_result","tool_use_id":"t","content":"13800138000"}]}],"metadata":{"phone":13800138000}}"#;
    let looked = filter.look_through_request(body, None, &mut Scratch::default()).expect("looked");
    let told: Vec<_> = looked.sightings.iter().map(|s| (&body[s.span.clone()], s.instead.as_deref())).collect();
    assert_eq!(told, [("13800138000", Some("[PHONE]")), ("13800138000", Some("\"[PHONE]\""))]);
    assert_eq!(looked.unscannable, 1);
}

#[test]
fn looking_through_with_tokens_gives_the_tokens_of_masking() {
    let (filter, mut vault) = (filter(|_| {}), vault(None));
    let text = "mail a@example.org";
    let looked = filter
        .look_through_text(text, Some(&mut Scopes { own: &mut vault, shared: None }), &mut Scratch::default())
        .expect("looked");
    let token = vault.known("a@example.org").expect("a token");
    assert_eq!(looked.sightings[0].instead.as_deref(), Some(token.as_str()));
    let without = filter.look_through_text(text, None, &mut Scratch::default());
    assert_eq!(without.unwrap_err(), Refusal::NoVault);
}

#[test]
fn in_thinking_only_what_was_told_before_it_is_replaced() {
    let thinking = |text: &str| {
        format!(
            r#"{{"role":"assistant","content":[{{"type":"thinking","thinking":"{text}","signature":"s"}},{{"type":"text","text":"13800138000"}}]}}"#
        )
    };
    let user = |text: &str| format!(r#"{{"role":"user","content":"{text}"}}"#);
    let body = |messages: &[String], more: &str| format!(r#"{{"messages":[{}]{more}}}"#, messages.join(","));
    let first = |body: &str| {
        let out = masked(&filter(|_| {}), &mut vault(Some("a")), body);
        let at = out.find("\"thinking\":\"").expect("thinking") + 12;
        out[at..at + 3].to_owned()
    };
    // The model wrote it itself, and only then said it.
    assert_eq!(first(&body(&[user("who?"), thinking("13800138000")], "")), "138");
    assert_eq!(first(&body(&[user("who?"), thinking("13800138000"), user("13800138000")], "")), "138");
    assert_eq!(first(&body(&[user("13800138000?"), thinking("13800138000")], "")), "ZQP");
    // System prompt and metadata stand before all messages, wherever they are in the body.
    assert_eq!(first(&body(&[user("who?"), thinking("13800138000")], r#","system":"13800138000""#)), "ZQP");
    // What the conversation knew before this request was a token when the model thought.
    let (filter, mut known) = (filter(|_| {}), vault(Some("a")));
    masked(&filter, &mut known, &ask("13800138000"));
    let out = masked(&filter, &mut known, &body(&[user("who?"), thinking("13800138000")], ""));
    assert!(!out.contains("13800138000"), "{out}");
}
