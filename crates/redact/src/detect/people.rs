//! Names of people and street addresses, by cues. Off unless asked for.
//!
//! There is no dictionary and no model here: a name is found where something says that it is one (an
//! honorific, "my name is", 姓名, 收件人), an address where it has the parts of one. So most names in
//! running text are missed, and a company can be taken for a person. The patterns are compiled once
//! and run in linear time.

use super::Hit;
use crate::kind::Kind;
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;

/// Each pattern's first group is the name. Chinese names begin with one of the usual surnames.
const NAMES: [&str; 4] = [
    r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Sir|Madam)\.? ((?:[A-Z][a-zé'’-]+)(?: [A-Z]\.)?(?: [A-Z][a-zé'’-]+){0,2})",
    r"(?:(?i:my name is|i am called|signed by|full name:?|first name:?|last name:?|patient:?|customer:?|recipient:?|contact:?|name:) *)((?:[A-Z][a-zé'’-]+)(?: [A-Z]\.)?(?: [A-Z][a-zé'’-]+){0,2})",
    r"(?:姓名|名字|联系人|收件人|收货人|寄件人|患者|客户|用户|户主|法人|申请人|负责人|经办人|我叫|我是|名叫)(?:是|为|叫)?[:： ]{0,2}((?:欧阳|司马|上官|诸葛|东方|皇甫|尉迟|公孙|慕容|令狐|[王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文])\p{Han}{1,2}?)(?:[^\p{Han}]|$|先生|女士|电话|手机|身份|住|的|，|在)",
    r"((?:欧阳|司马|上官|诸葛|[王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文])\p{Han}{0,2}?)(?:先生|女士|小姐|同学|老师)",
];

/// Parts of an address: in Chinese from the province or city to the house, in English from the
/// house to the street, with what may follow.
const ADDRESSES: [&str; 3] = [
    r"((?:\p{Han}{2,8}(?:省|自治区))?\p{Han}{2,8}(?:市|自治州|地区|盟)?\p{Han}{1,8}(?:区|县|市|旗|镇|乡)[\p{Han}A-Za-z0-9]{1,20}?(?:路|街|道|巷|弄|胡同|大道|村|小区|花园|大厦)[\p{Han}A-Za-z0-9\-]{0,12}?[0-9A-Za-z]{1,6}(?:号|弄|栋|幢|座|楼|室|单元)(?:[0-9A-Za-z\-]{1,6}(?:号楼|号|栋|幢|座|楼|层|单元|室|户)){0,4})",
    r"\b(\d{1,5}[A-Za-z]? (?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.? )?(?:[A-Z][a-z']+ ){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Way|Highway|Hwy|Parkway|Pkwy|Close|Crescent)\b\.?(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|#)\.? ?[0-9A-Za-z]{1,5})?(?:, [A-Z][A-Za-z .]{1,30}(?:, [A-Z]{2})?(?: \d{5}(?:-\d{4})?)?)?)",
    r"\b(P\.? ?O\.? Box \d{1,6})\b",
];

/// Finds names and addresses.
#[derive(Debug)]
pub(crate) struct People {
    names: Option<Regex>,
    addresses: Option<Regex>,
}

/// A pattern of this file is no regular expression: a fault of this code.
#[derive(Debug)]
pub(crate) struct NotCompiled;

impl People {
    pub(crate) fn new(names: bool, addresses: bool) -> Result<Self, NotCompiled> {
        let compile = |wanted: bool, patterns: &[&str]| match wanted {
            true => Regex::new_many(patterns).map(Some).map_err(|_| NotCompiled),
            false => Ok(None),
        };
        Ok(People { names: compile(names, &NAMES)?, addresses: compile(addresses, &ADDRESSES)? })
    }

    pub(crate) fn scan(&self, text: &[u8], hits: &mut Vec<Hit>) {
        for (regex, kind, rule) in [(&self.names, Kind::Name, "name"), (&self.addresses, Kind::Address, "address")] {
            let Some(regex) = regex else { continue };
            hits.extend(regex.captures_iter(text).filter_map(|found| first_group(&found)).map(|(start, end)| Hit {
                start: start + lead_in(&text[start..end]),
                end,
                kind,
                rule,
                score: 55,
                custom: None,
            }));
        }
    }
}

fn first_group(found: &Captures) -> Option<(usize, usize)> {
    found.get_group(1).map(|span| (span.start, span.end))
}

/// Bytes of what leads to an address and is written together with it.
fn lead_in(found: &[u8]) -> usize {
    let words = [
        "家庭住址",
        "收货地址",
        "地址",
        "住址",
        "居住在",
        "家住",
        "住在",
        "位于",
        "寄到",
        "送到",
        "发到",
        "在",
        "到",
        "是",
        "住",
    ];
    words.iter().map(|word| word.as_bytes()).find(|word| found.starts_with(word)).map_or(0, <[u8]>::len)
}
