//! How much is found, and how much is taken for what it is not, in numbers.
//!
//! Values of every kind are put into sentences of two languages, plain and in disguise, and what the
//! detector says is counted; then text without anything personal. The tables are printed (`cargo test
//! -p tidegate-redact --test corpus -- --nocapture`) and kept in `docs/redaction.md`; the test holds
//! them to a minimum. `TIDEGATE_NOISE=folder` adds the text files of a folder to the noise, and
//! `TIDEGATE_NOISE_SHOW=1` prints what is found in them.

mod noise;
mod values;

use std::collections::BTreeMap;
use std::path::Path;
use tidegate_base::Prng;
use tidegate_redact::detect::{Detector, Looking};
use tidegate_redact::kind::Kind;

/// Values of each kind and form.
const EACH: usize = 300;
/// Bytes of each sort of noise.
const NOISE_BYTES: usize = 1 << 20;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// As its standard writes it, with a word that says what it is.
    Named,
    /// The same, and nothing says what it is.
    Bare,
    FullWidth,
    ZeroWidth,
    Spaced,
    Dashed,
    Numerals,
    Broken,
    Escaped,
    Markdown,
}

const FORMS: [Form; 10] = [
    Form::Named,
    Form::Bare,
    Form::FullWidth,
    Form::ZeroWidth,
    Form::Spaced,
    Form::Dashed,
    Form::Numerals,
    Form::Broken,
    Form::Escaped,
    Form::Markdown,
];

/// Kinds that have values to make. Passports and plates are never looked for without a word.
fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Name | Kind::Address | Kind::Custom))
}

fn only_digits(value: &str) -> bool {
    value.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')' | '+'))
}

/// `value` in disguise; `None` where that makes no sense for it.
fn disguise(dice: &mut Prng, kind: Kind, value: &str, form: Form) -> Option<String> {
    let long = matches!(kind, Kind::PrivateKey | Kind::Jwt | Kind::Password | Kind::Secret);
    let compact: String = value.chars().filter(|c| c.is_ascii_alphanumeric() || *c as u32 > 127).collect();
    let plain = value.len() == compact.len();
    let middle = value.char_indices().map(|(at, _)| at).nth(value.chars().count() / 2)?;
    let numeric = kind == Kind::Phone || only_digits(value);
    match form {
        Form::Named | Form::Bare => Some(value.to_owned()),
        Form::FullWidth if !long => Some(
            value
                .chars()
                .map(|c| if c.is_ascii_graphic() { char::from_u32(c as u32 + 0xFEE0).unwrap_or(c) } else { c })
                .collect(),
        ),
        Form::ZeroWidth if !long => Some(format!("{}\u{200b}{}", &value[..middle], &value[middle..])),
        Form::Spaced if plain && compact.len() > 7 => Some(match kind {
            Kind::Phone if compact.len() == 11 => format!("{} {} {}", &compact[..3], &compact[3..7], &compact[7..]),
            Kind::Card | Kind::BankCard | Kind::Iban if !matches!(compact.len(), 14 | 15) => {
                values::in_fours(&compact, " ")
            }
            Kind::ResidentId => format!("{} {} {}", &compact[..6], &compact[6..14], &compact[14..]),
            _ => return None,
        }),
        Form::Dashed if plain && compact.len() > 7 => Some(match kind {
            Kind::Phone if compact.len() == 11 => format!("{}-{}-{}", &compact[..3], &compact[3..7], &compact[7..]),
            Kind::Card | Kind::BankCard if compact.len() >= 16 => values::in_fours(&compact, "-"),
            _ => return None,
        }),
        Form::Numerals if numeric && plain => {
            let rich = dice.chance(0.3);
            let set: Vec<char> = if rich { "零壹贰叁肆伍陆柒捌玖" } else { "零一二三四五六七八九" }.chars().collect();
            Some(value.chars().map(|c| c.to_digit(10).map_or(c, |d| set[d as usize])).collect())
        }
        Form::Broken if !long && plain => Some(format!("{}\n{}", &value[..middle], &value[middle..])),
        Form::Escaped => Some(
            value
                .chars()
                .enumerate()
                .map(|(at, c)| {
                    if at % 3 == 1 {
                        format!("\\u{:04x}", c as u32)
                    } else if c == '\n' {
                        "\\n".to_owned()
                    } else {
                        c.to_string()
                    }
                })
                .collect(),
        ),
        Form::Markdown if !long => {
            Some(format!("**{}**", value.replace('-', "\\-").replace('_', "\\_").replace('.', "\\.")))
        }
        _ => None,
    }
}

/// Sentences without a word that names a kind; `@` is the value.
const BARE: [&str; 8] = [
    "please check @ again and tell us",
    "we got @ from them yesterday.",
    "(@)",
    "请核对@，谢谢",
    "他发来的是 @ 。",
    "\"value\": \"@\",",
    "- @",
    "@",
];
/// Sentences with a word, `W`.
const NAMED: [&str; 8] = [
    "my W is @, thanks",
    "W: @",
    "Please note the new W @.",
    "我的W是@，请保存",
    "W：@",
    "{\"W\": \"@\"}",
    "W=@;",
    "客户资料\nW @\n备注：无",
];

fn sentence(dice: &mut Prng, kind: Kind, word: &str, value: &str, form: Form) -> (String, std::ops::Range<usize>) {
    // What has no check digit and no form of its own is only looked for with its word.
    let needs_word = matches!(kind, Kind::Passport);
    let forms = if (form == Form::Bare && !needs_word) || kind == Kind::Password { &BARE } else { &NAMED };
    let form = dice.pick(forms.as_slice()).copied().unwrap_or("@").replace('W', word);
    let value =
        if kind == Kind::Password { format!("postgres://app:{value}@db.internal:5432/x") } else { value.to_owned() };
    let at = form.find('@').unwrap_or(0);
    let text = form.replacen('@', &value, 1);
    (text, at..at + value.len())
}

#[derive(Default)]
struct Count {
    values: usize,
    found: usize,
    said: usize,
    right: usize,
    missed: Vec<String>,
}

fn measure(detector: &Detector) -> BTreeMap<(Kind, Form), Count> {
    let mut counts: BTreeMap<(Kind, Form), Count> = BTreeMap::new();
    let dice = Prng::new(20_261_123);
    for kind in kinds() {
        for form in FORMS {
            let mut dice = dice.fork(&format!("{kind} {form:?}"));
            for _ in 0..EACH {
                let (word, value) = values::of(&mut dice, kind);
                let Some(dressed) = disguise(&mut dice, kind, &value, form) else { continue };
                let (text, span) = sentence(&mut dice, kind, word, &dressed, form);
                // A plus, a bracket or stars beside the digits may stay outside.
                let slack = if kind == Kind::Password { text.len() } else { 4 };
                let found = detector.find(&text);
                let hits = |f: &&tidegate_redact::detect::Finding| {
                    f.kind == kind && f.span.start <= span.start + slack && f.span.end + slack >= span.end
                };
                let count = counts.entry((kind, form)).or_default();
                count.values += 1;
                count.said += found.len();
                count.right += found.iter().filter(hits).count();
                if found.iter().any(|f| hits(&f)) {
                    count.found += 1;
                } else if count.missed.len() < 3 {
                    count
                        .missed
                        .push(format!("{text:?} {:?}", found.iter().map(|f| (f.kind, f.rule)).collect::<Vec<_>>()));
                }
            }
        }
    }
    counts
}

fn percent(part: usize, whole: usize) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}", 100.0 * part as f64 / whole as f64) }
}

#[test]
fn what_is_there_is_found() {
    let detector = Detector::new(&Looking::default()).expect("the default detector");
    let counts = measure(&detector);
    println!(
        "\n| kind | named | bare | full-width | zero-width | spaced | dashed | numerals | broken | escaped | Markdown | precision |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for kind in kinds() {
        let of = |form: Form| counts.get(&(kind, form));
        let cells: Vec<String> =
            FORMS.iter().map(|form| of(*form).map_or("-".to_owned(), |c| percent(c.found, c.values))).collect();
        let (right, said) =
            FORMS.iter().filter_map(|form| of(*form)).fold((0, 0), |sum, c| (sum.0 + c.right, sum.1 + c.said));
        println!("| {kind} | {} | {} |", cells.join(" | "), percent(right, said));
    }
    if std::env::var_os("TIDEGATE_NOISE_SHOW").is_some() {
        for ((kind, form), count) in &counts {
            count.missed.iter().for_each(|text| println!("missed {kind} {form:?}: {text}"));
        }
    }
    for ((kind, form), count) in &counts {
        let least = match (kind, form) {
            (_, Form::Named) => 95,
            _ => continue,
        };
        assert!(count.found * 100 >= count.values * least, "{kind} {form:?}: {} of {}", count.found, count.values);
    }
}

/// The text files under `folder`, but for this room's own, which are full of examples.
fn files(folder: &Path, ends: &[&str], out: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !path.is_symlink() && !matches!(name, "target" | ".git" | "redact" | "node_modules") {
            files(&path, ends, out);
        } else if path.is_file() && (ends.is_empty() || ends.iter().any(|end| name.ends_with(end))) {
            out.extend(std::fs::read_to_string(&path));
        }
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let detector = Detector::new(&Looking::default()).expect("the default detector");
    let mut sorts = noise::all(&mut Prng::new(20_261_123), NOISE_BYTES);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut code, mut own) = (Vec::new(), Vec::new());
    files(&root.join("crates"), &[".rs"], &mut code);
    files(&root, &["Cargo.lock"], &mut own);
    sorts.push(("source code (this repository)", code.concat()));
    sorts.push(("lock files with hashes", own.concat()));
    if let Some(folder) = std::env::var_os("TIDEGATE_NOISE") {
        let mut text = Vec::new();
        files(Path::new(&folder), &[], &mut text);
        sorts.push(("the folder that was named", text.concat()));
    }
    println!("\n| text | MB | findings | per MB | kinds |");
    println!("|---|---|---|---|---|");
    for (name, text) in &sorts {
        let found = detector.find(text);
        let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
        for finding in &found {
            *by_kind.entry(format!("{} {}", finding.kind, finding.rule)).or_default() += 1;
            if std::env::var_os("TIDEGATE_NOISE_SHOW").is_some() {
                let at = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                let around = at(finding.span.start.saturating_sub(40))..at(finding.span.end + 20);
                println!(
                    "in {name}: {} {} {:?} in {:?}",
                    finding.kind,
                    finding.rule,
                    &text[finding.span.clone()].chars().take(60).collect::<String>(),
                    &text[around].chars().take(120).collect::<String>()
                );
            }
        }
        let mb = text.len() as f64 / 1e6;
        let kinds: Vec<String> = by_kind.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        println!("| {name} | {mb:.2} | {} | {:.1} | {} |", found.len(), found.len() as f64 / mb, kinds.join(", "));
        let most = match *name {
            "prose with numbers" | "versions" | "hashes" | "base64" => 1.0,
            _ => continue,
        };
        assert!(found.len() as f64 / mb <= most, "{name}: {}", found.len());
    }
}
