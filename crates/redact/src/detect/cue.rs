//! Cues: words near a candidate that say what it is, or that it is something else.
//!
//! A number alone says little; "手机" before it says much, and "order no." says the opposite. One
//! automaton over all cue words looks through a short window around a candidate, only when a rule
//! asks. Per topic the distance of the nearest cue is kept, so that of "order 4711, phone 555..."
//! the nearer word decides. A cue of Latin letters must be a word of its own, or a part of one in
//! snake_case or camelCase.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// Bytes before a candidate that are looked at: some 32 characters of Latin script and 30 of Chinese.
const BEFORE_BYTES: usize = 90;
/// Bytes behind it: a cue that follows stands close.
const AFTER_BYTES: usize = 30;

/// How near a cue has to be to numbers that little else speaks for, bytes.
const WEAK_BYTES: u8 = 45;

/// What a cue speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    Phone,
    Card,
    Account,
    Identity,
    /// The United States' numbers: other countries' have nine digits too.
    Ssn,
    Passport,
    Plate,
    Ip,
    Secret,
    Company,
    /// A number that is nobody's: orders, parcels, versions, hashes.
    Thing,
}

const TOPICS: usize = 11;

const WORDS: [(Topic, &str); TOPICS] = [
    (
        Topic::Phone,
        "phone|phones|telephone|tel|mobile|cell|cellphone|call|fax|whatsapp|sms|text me|dial|reach me|reached|contact|\
         hotline|number is|teléfono|móvil|téléphone|telefon|handy|telefono|telefone|celular|电话|手机|联系方式|\
         联系|致电|拨打|短信|来电|热线|座机|电联|微信同号|手机号|号码|机主|電話|手機|聯絡|携帯|전화|휴대폰",
    ),
    (
        Topic::Card,
        "card|credit card|debit card|visa|mastercard|amex|american express|discover|jcb|unionpay|PAN|CC|ccn|cvv|expiry|\
         exp date|tarjeta|carte|kreditkarte|信用卡|卡号|支付卡|银联|刷卡|カード",
    ),
    (
        Topic::Account,
        "bank card|bank account|account|acct|iban|transfer|deposit|wire|银行卡|银行|账号|账户|帐号|储蓄卡|借记卡|卡号|\
         开户|转账|收款|汇款|工资卡|打款|尾号|銀行|口座|信用卡|打到|转到",
    ),
    (
        Topic::Identity,
        "identity|identification|id card|id number|id no|national id|tax id|taxpayer|dni|nie|NIF|CIF|codice fiscale|CF|NIR|\
         sécurité sociale|securite sociale|insee|steuer-id|steuer|idnr|steuernummer|\
         steueridentifikationsnummer|bsn|burgerservicenummer|sofinummer|rijksregister|rijksregisternummer|registre \
         national|niss|pesel|personnummer|fødselsnummer|fodselsnummer|hetu|henkilötunnus|SIN|social insurance|nino|ni \
         number|national insurance|nhs|PPS|ppsn|AHV|AVS|cpf|cnpj|curp|RUT|RUN|cuit|cuil|aadhaar|aadhar|uidai|PAN|\
         rrn|my number|mynumber|individual number|nric|FIN|hkid|kimlik|tckn|tc no|tfn|tax file|medicare|za id|citizen|\
         身份证|身份|证件|证号|身份證|身分證|社保|医保|公民|マイナンバー|個人番号|주민등록번호|주민번호|社会保障|税号",
    ),
    (Topic::Ssn, "ssn|ss#|ss number|my social|social security|itin|tin|tax id|taxpayer|ssa|社会安全号|社会保障号"),
    (
        Topic::Passport,
        "passport|passports|travel document|pasaporte|passeport|reisepass|passaporto|护照|通行证|護照|回乡证|台胞证|港澳|\
         旅行证|旅券|パスポート|여권",
    ),
    (
        Topic::Plate,
        "plate|plates|license plate|licence plate|registration|number plate|vehicle|reg|matrícula|kennzeichen|车牌|车牌号|牌照|号牌|车辆|汽车|車牌|驾驶|停车",
    ),
    (
        Topic::Ip,
        "ip|ips|ip地址|address|addr|host|client|server|from|login|logged|remote|peer|source|src|dst|ping|ssh|gateway|connect|\
         connected|connection|x-forwarded-for|whitelist|blacklist|firewall|blocked|dns|subnet|地址|登录|来源|服务器|访问",
    ),
    (
        Topic::Secret,
        "password|passwd|pwd|secret|token|api key|apikey|api_key|access key|auth|bearer|credential|credentials|\
         authorization|key|密码|密钥|口令|令牌",
    ),
    (
        Topic::Company,
        "uscc|credit code|unified social|统一社会信用代码|信用代码|税号|纳税人识别号|组织机构|营业执照|公司|企业|开票",
    ),
    (
        Topic::Thing,
        "order|orders|order no|job|task|status|worker|retry|process|invoice|tracking|shipment|parcel|waybill|sku|upc|ean|isbn|issn|serial|version|ver|release|\
         build|commit|sha|sha1|sha256|md5|hash|uuid|guid|trace|traceid|span|timestamp|ts|epoch|unix|millis|nanos|bytes|\
         size|offset|line|row|col|port|pid|tid|seq|sequence|ticket|issue|bug|pr|batch|transaction|txn|txid|ref|\
         reference|part|model|asset|barcode|rev|revision|checksum|checksums|crc|lat|lon|latitude|longitude|order_id|section|sections|chapter|\
         oid|memory|heap|capacity|total|limit|usage|\
         订单|订单号|单号|快递|运单|流水|流水号|编号|序列号|版本|批次|条码|发票|物流|时间戳|哈希|注文|商品|合同号|货号",
    ),
];

/// Finds cues.
#[derive(Debug)]
pub(crate) struct Cues {
    words: AhoCorasick,
    topics: Vec<Topic>,
    /// Which words count only in capitals.
    capitals: Vec<bool>,
}

/// How near the nearest cue of each topic is, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Near([u8; TOPICS]);

impl Near {
    /// How far the nearest cue of `topic` is; 255 if there is none.
    pub(crate) fn distance(&self, topic: Topic) -> u8 {
        self.0[topic as usize]
    }

    /// The same for numbers that little else speaks for: what raises has to be near.
    pub(crate) fn moves_weak(&self, topic: Topic) -> i32 {
        let moves = self.moves(&[topic]);
        if moves > 0 && self.distance(topic) > WEAK_BYTES { 0 } else { moves }
    }

    /// Whether there is a cue of `topic`.
    pub(crate) fn has(&self, topic: Topic) -> bool {
        self.distance(topic) < u8::MAX
    }

    /// By how much cues move a score: up where one of `topics` is the nearest, down where the number
    /// is said to be a thing's.
    pub(crate) fn moves(&self, topics: &[Topic]) -> i32 {
        let nearest = topics.iter().map(|topic| self.distance(*topic)).min().unwrap_or(u8::MAX);
        match (nearest, self.distance(Topic::Thing)) {
            (u8::MAX, u8::MAX) => 0,
            (good, bad) if good <= bad => 35,
            _ => -35,
        }
    }
}

impl Cues {
    pub(crate) fn new() -> Result<Self, aho_corasick::BuildError> {
        let pairs: Vec<(Topic, &str)> =
            WORDS.iter().flat_map(|(topic, words)| words.split('|').map(|word| (*topic, word.trim()))).collect();
        let words = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(pairs.iter().map(|(_, word)| word))?;
        let capitals = pairs.iter().map(|(_, word)| word.bytes().any(|b| b.is_ascii_uppercase())).collect();
        Ok(Cues { words, capitals, topics: pairs.into_iter().map(|(topic, _)| topic).collect() })
    }

    /// The cues around the span `start..end` of `text`.
    pub(crate) fn near(&self, text: &[u8], start: usize, end: usize) -> Near {
        self.behind(text, end, self.ahead(text, start))
    }

    /// The cues before `start`.
    pub(crate) fn ahead(&self, text: &[u8], start: usize) -> Near {
        let mut near = Near([u8::MAX; TOPICS]);
        let from = start.saturating_sub(BEFORE_BYTES);
        self.look(text, from, start, &mut near, |found_end| start - found_end);
        near
    }

    /// Those of `near`, and the cues behind `end`. What follows says less than what goes before.
    pub(crate) fn behind(&self, text: &[u8], end: usize, mut near: Near) -> Near {
        let to = (end + AFTER_BYTES).min(text.len());
        self.look(text, end, to, &mut near, |found_end| found_end - end + 8);
        near
    }

    fn look(&self, text: &[u8], from: usize, to: usize, near: &mut Near, distance: impl Fn(usize) -> usize) {
        for found in self.words.find_overlapping_iter(&text[from..to]) {
            let (start, end) = (from + found.start(), from + found.end());
            let number = found.pattern().as_usize();
            let away = distance(end).min(254) as u8;
            // Capitals in the table: a common word else, unless it stands right at the number.
            let spelt = away <= 5 || !self.capitals[number] || text[start..end].iter().all(|b| !b.is_ascii_lowercase());
            if spelt && is_word(text, start, end) {
                let slot = &mut near.0[self.topics[number] as usize];
                *slot = (*slot).min(away);
            }
        }
    }
}

/// Whether what stands at `start..end` is a word, not a part of one.
fn is_word(text: &[u8], start: usize, end: usize) -> bool {
    let before = start.checked_sub(1).map_or(b' ', |at| text[at]);
    let after = text.get(end).copied().unwrap_or(b' ');
    let open = !before.is_ascii_alphabetic()
        || !text[start].is_ascii_alphabetic()
        || (before.is_ascii_lowercase() && text[start].is_ascii_uppercase());
    let close = !after.is_ascii_alphabetic()
        || !text[end - 1].is_ascii_alphabetic()
        || (text[end - 1].is_ascii_lowercase() && after.is_ascii_uppercase());
    // Two or three letters between digits are a hash's.
    let short = end - start <= 3 && text[start].is_ascii_alphabetic();
    let inside = before.is_ascii_digit() || after.is_ascii_digit();
    open && close && !(short && inside && before != b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Near {
        let at = text.find('#').expect("the candidate");
        Cues::new().unwrap().near(text.as_bytes(), at, at + 1)
    }

    #[test]
    fn the_nearest_word_decides() {
        assert_eq!(check("order 4711, phone #").moves(&[Topic::Phone]), 35);
        assert_eq!(check("phone of order #").moves(&[Topic::Phone]), -35);
        assert_eq!(check("手机号码：#").moves(&[Topic::Phone]), 35);
        assert_eq!(check("nothing said #").moves(&[Topic::Phone]), 0);
        assert_eq!(check("# is my phone").moves(&[Topic::Phone]), 35);
    }

    #[test]
    fn a_part_of_a_word_is_no_cue() {
        assert!(!check("hotel #").has(Topic::Phone));
        assert!(check("phoneNumber: #").has(Topic::Phone) && check("user_tel=#").has(Topic::Phone));
        assert!(!check("paid #").has(Topic::Identity));
    }
}
