//! What is found and what is not, example by example: canonical forms, disguises, and what only looks
//! like personal data. The corpus (`corpus`) counts; this says what each rule means.

use tidegate_redact::detect::{Detector, Looking};
use tidegate_redact::kind::Kind;

/// In `text` just the part in `«»` is found, as `kind`; without such a part nothing is.
fn check_with(detector: &Detector, kind: Option<Kind>, marked: &str) {
    let text = marked.replace(['«', '»'], "");
    let want = marked.find('«').map(|start| start..marked.find('»').expect("a closing mark") - '«'.len_utf8());
    let found = detector.find(&text);
    let found: Vec<_> = found.iter().map(|f| (f.kind, &text[f.span.clone()])).collect();
    let want: Vec<_> = want.into_iter().map(|span| (kind.expect("a kind"), &text[span])).collect();
    assert_eq!(found, want, "{text:?}");
}

fn check(kind: Kind, marked: &[&str]) {
    let detector = Detector::new(&Looking::default()).expect("the default detector");
    marked.iter().for_each(|marked| check_with(&detector, Some(kind), marked));
}

fn check_nothing(texts: &[&str]) {
    let detector = Detector::new(&Looking::default()).expect("the default detector");
    texts.iter().for_each(|text| check_with(&detector, None, text));
}

#[test]
fn phones() {
    check(
        Kind::Phone,
        &[
            "我的手机号是«13800138000»，谢谢",
            "call «138 0013 8000» or",
            "(+«86) 138-0013-8000»",
            "联系人：张三«13800138000»一直打不通",
            "«0755-82345678-801»",
            "«086-13800138000»",
            "«13800138000»,1",
            "«138.0013.8000» 我的",
            "«138—0013—8000»",
            "«1-415-555-2671»",
            "«0086 13800138000»",
            "«138-0013-8000»",
            "+«86 138 0013 8000»",
            "电话：«１３８００１３８０００»。",
            "电话：«一三八零零一三八零零零»",
            "手机 «1 3 8 0 0 1 3 8 0 0 0» 找我",
            "手机 «138\u{200b}0013\u{200b}8000»",
            "我的手机«1380013\n8000»",
            r"\n«13800138000»\n",
            r"tel: «138\u00300138000»",
            "Phone«13800138000»",
            "座机 «010-62345678»",
            "总机（«0755) 8234 5678»",
            "Call me at («415) 555-2671».",
            "tel «415-555-2671»",
            "my cell is «4155552671»",
            "+«1 415 555 2671» works",
            "+«44 20 7946 0958»",
            "联系电话+«8613800138000»",
            "Ruf an: telefon «030 123 45 678»",
        ],
    );
    check_nothing(&[
        "at 1700000000 and 1700000000123",
        "订单号 13800138000 已发货",
        "order no. 4155552671",
        "客服 400-820-8820",
        "version 138.0013.8000",
        "a price of $13800138000",
        "0.13800138000",
        "id 550e8400-e29b-41d4-a716-446655440000",
        "2026-11-23 13:22:34.123456789",
        "x1380013800011",
        "99913800138000",
    ]);
}

#[test]
fn mail() {
    check(
        Kind::Email,
        &[
            "write to «alice.smith+x@mail.example.com».",
            "邮箱«alice@example.com»请查收",
            "«ALICE＠EXAMPLE．COM»",
            "«alice (at) example (dot) com»",
            "«alice[at]example[dot]com» now",
            "«bob @ example.com»",
            "or «carol.x at example dot com»",
            "«bob@\nexample.com»",
            "«bob@example。com»。",
            r#"{\"mail\":\"«a_b@qq.com»\"}"#,
        ],
    );
    check_nothing(&[
        "git@github.com:x/y.git",
        "logo@2x.png",
        "a@b",
        "meet me at example.com today",
        "we looked at the dot com bubble",
        "npm i react@18.2.0",
        "@app.route",
        "user@host",
    ]);
}

#[test]
fn cards_and_accounts() {
    check(
        Kind::Card,
        &[
            "card «4111 1111 1111 1111» exp",
            "«4111-1111-1111-1111»",
            "«4111 1111 11111111»",
            "pay with «5555555555554444».",
            "amex «3782 822463 10005»",
            "卡号：«４１１１１１１１１１１１１１１１»",
        ],
    );
    check(Kind::BankCard, &["银行卡 «6222021234567890128»", "«6222 0212 3456 7890 128»"]);
    check(
        Kind::Iban,
        &["IBAN «GB82 WEST 1234 5698 7654 32» ok", "«DE89370400440532013000»", "«de89 3704 0044 0532 0130 00»"],
    );
    check_nothing(&[
        "4111 1111 1111 1112",
        "order 4111111111111111",
        "1111111111111111",
        "GB82 WEST 1234 5698 7654 33",
        "1234 5678 9012 3456 7890 1234",
    ]);
}

#[test]
fn chinese_identifiers() {
    check(
        Kind::ResidentId,
        &[
            "身份证«11010519491231002X»",
            "身份证号：«110105 19491231 002x»",
            "«１１０１０５１９４９１２３１００２Ｘ»",
            "«110105194912310\n02X»",
            "身份证 «130503670401001»",
            "«1 1 0 1 0 5 1 9 4 9 1 2 3 1 0 0 2 X»",
        ],
    );
    check(Kind::CreditCode, &["统一社会信用代码 «91110000600037341L»", "(«91110000600037341L»)"]);
    check(
        Kind::Plate,
        &[
            "车牌«京A12345»",
            "«粤B·D1234»",
            "«沪AD12345»新能源",
            "license plate «7ABC123»",
            "plate: «AB12 CDE»",
            "plate «ABC-1234»",
            "«京 A12345»",
        ],
    );
    check(Kind::Passport, &["护照号 «E12345678»", "passport no: «G12345678»", "Passport: «123456789»"]);
    check_nothing(&["110105194912310021", "11010519491331002X", "E12345678", "京A1234I", "91110000600037341M"]);
}

#[test]
fn national_numbers() {
    check(
        Kind::Ssn,
        &[
            "SSN «536-90-4399»",
            "SSN «123-45-6789»",
            "my social security number is «078-05-1120».",
            "«536-90-4399»",
            "social security number «536904399»",
        ],
    );
    check(
        Kind::NationalId,
        &[
            "CPF «390.533.447-05»",
            "«12345678Z»",
            "DNI «12345678-Z»",
            "«RSSMRA85T10A562S»",
            "«S1234567D»",
            "«A123456789»",
            "HKID «A123456(3)»",
            "«131052-308T»",
            "Aadhaar: «2341 2341 2346»",
            "PESEL «44051401359»",
            "NI «AB 12 34 56 C»",
            "NINO: «AB123456C»",
            "RUT «12.531.909-2»",
            "NHS number «943 476 5919»",
            "«756.9217.0769.85»",
            "nir «2 55 08 14 168 025 38»",
            "«971013-9019902»",
        ],
    );
    check_nothing(&["536-00-4399", "666-90-4399", "390.533.447-06", "12345678A", "RSSMRA85T10A562T", "44051401359"]);
}

#[test]
fn addresses_of_the_network() {
    check(
        Kind::Ip,
        &[
            "from «8.8.8.8»",
            "«203.0.113.77»:443",
            "«2001:db8::8a2e:370:7334»",
            "host [«2606:4700:4700::1111»]",
            "login from «47.92.15.201»",
        ],
    );
    check(
        Kind::Password,
        &[
            "postgres://app:«s3cr3t!x»@db.internal/x",
            "https://u:«p@ss»@example.com",
            "https://user:«pass123»@example.com/path",
        ],
    );
    check_nothing(&[
        "192.168.1.1 10.0.0.1 127.0.0.1",
        "version 1.2.3.4",
        "v1.2.3.4",
        "foo-1.2.3.4.tar.gz",
        "1.2.3.4.5",
        "std::vec::Vec",
        "12:34:56",
        "fe80::1 and ::1",
        "10.0.19041.1",
        "https://example.com:8080/x@y",
        "a::b abcd::1",
    ]);
}

#[test]
fn names_and_addresses_if_asked() {
    let looking = Looking { kinds: [true; tidegate_redact::kind::KINDS], ..Looking::default() };
    let detector = Detector::new(&looking).expect("a detector");
    for text in ["Dear Mr. «John Smith», hello", "my name is «Jane Doe».", "收件人：«王小明»，", "请问«李娜»女士在吗"]
    {
        check_with(&detector, Some(Kind::Name), text);
    }
    for text in ["at «221 Baker Street» today", "住在«北京市海淀区中关村大街27号院3号楼502室»。"]
    {
        let text = text.replace("27号院3号楼502室", "27号3栋502室");
        check_with(&detector, Some(Kind::Address), &text);
    }
    check_nothing(&["Dear Mr. John Smith", "at 221 Baker Street"]);
}

#[test]
fn own_patterns_and_what_is_allowed() {
    let looking = Looking {
        patterns: vec![tidegate_redact::detect::Pattern { name: "badge".into(), regex: r"\bEMP-\d{6}\b".into() }],
        allow: vec!["400-820-8820".into(), "@example.com".into(), "13800138000".into()],
        ..Looking::default()
    };
    let detector = Detector::new(&looking).expect("a detector");
    check_with(&detector, Some(Kind::Custom), "badge «EMP-００1234» ok");
    check_with(&detector, None, "write to help@example.com or call 138-0013-8000");
    check_with(&detector, Some(Kind::Email), "write to «help@example.org»");
}
