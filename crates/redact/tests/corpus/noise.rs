//! Text that has nothing personal in it and looks as if: prose with numbers, code, logs, ids, hashes,
//! versions, order numbers.

use crate::values::digits;
use tidegate_base::Prng;

const SENTENCES: [&str; 10] = [
    "The committee met on # March 20# and approved a budget of $#,# for the next # years.",
    "Chapter # of the report, pages #-#, lists # of the # species that were counted.",
    "In 19# the population was #,#,# and by 20# it had grown by #.# %.",
    "She scored # out of # and finished #th, # seconds behind the leader.",
    "See section #.#.# (figure #) for a comparison of # samples at # degrees.",
    "根据第#条第#款，项目总投资#万元，工期#个月，覆盖人口约#万。",
    "20#年#月#日，全国共有#家企业参加，成交额达到#.#亿元，同比增长#.#%。",
    "第#届会议一共通过了#项决议，三分之二的代表投了赞成票，一千二百人旁听。",
    "他一口气读了#页，七八个小时没有停，五六个人在旁边等着。",
    "气温从零下#度升到#度，湿度百分之#，风力三到四级。",
];

const LOGS: [&str; 6] = [
    "20#-11-#T13:#:#.#Z INFO request_id=$ status=200 bytes=#### duration_ms=### trace=@@",
    "[170#######] worker-# finished job 1########## in #.### s (queue depth ##)",
    "10.0.#.# - - [##/Nov/2026:13:22:34 +0000] \"GET /items/######## HTTP/1.1\" 200 #### \"-\" \"Mozilla/5.0 (X11; Linux x86_64) Chrome/12#.0.####.##\"",
    "kernel: [ ####.######] eth0: link up, 1000Mbps, full duplex, lpa 0x####",
    "ts=17########### level=debug offset=######### partition=# lag=###### consumer=192.168.#.#",
    "E11## 13:22:34.###### #### controller.go:###] error syncing 'default/app-@': not found, retry 1##########",
];

const IDS: [&str; 8] = [
    "order ################ shipped",
    "订单号：2026############ 已付款",
    "快递单号 SF############，流水号 ####################",
    "tracking 1Z999AA1########## invoice ##########",
    "SKU-########-## x #, EAN 40###########",
    "ticket #####, build ########.#, timestamp 17###########",
    "status/1########## ##################",
    "serial: SN############ rev ##",
];

const VERSIONS: [&str; 5] = [
    "foo v#.#.#-rc.# (build ####.#.##.#)",
    "package-#.#.#.#.tar.gz, openssl 1.1.1w, glibc 2.#",
    "\"version\": \"#.#.##\", \"resolved\": \"react@##.#.#\"",
    "Windows 10.0.#####.#### requires version 4.#.#.#",
    "release 20##.##.## (API 20##-##-##)",
];

fn fill(dice: &mut Prng, form: &str, short: bool) -> String {
    let mut out = String::new();
    for c in form.chars() {
        match c {
            '#' if short => out.push_str(&dice.between(1, 99).to_string()),
            '#' => out.push_str(&digits(dice, 1)),
            '$' if !short => out.push_str(&uuid(dice)),
            '@' => out.push_str(&format!("{:016x}", dice.next_u64())),
            c => out.push(c),
        }
    }
    out + "\n"
}

fn uuid(dice: &mut Prng) -> String {
    let hex = format!("{:016x}{:016x}", dice.next_u64(), dice.next_u64());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

fn until(bytes: usize, mut line: impl FnMut() -> String) -> String {
    let mut text = String::with_capacity(bytes + 256);
    while text.len() < bytes {
        text.push_str(&line());
    }
    text
}

/// The sorts of noise, `bytes` of each.
pub(crate) fn all(dice: &mut Prng, bytes: usize) -> Vec<(&'static str, String)> {
    let mut of = |name: &'static str, forms: &[&str], short: bool| {
        let line = || {
            let form = dice.pick(forms).copied().unwrap_or_default();
            fill(dice, form, short)
        };
        (name, until(bytes, line))
    };
    let mut sorts = vec![
        of("prose with numbers", &SENTENCES, true),
        of("logs", &LOGS, false),
        of("order and serial numbers", &IDS, false),
        of("versions", &VERSIONS, false),
    ];
    let mut dice = dice.fork("ids");
    sorts.push(("UUIDs", until(bytes, || uuid(&mut dice) + "\n")));
    sorts.push((
        "hashes",
        until(bytes, || (0..4).map(|_| format!("{:016x}", dice.next_u64())).collect::<String>() + "  file\n"),
    ));
    sorts.push((
        "random digits",
        until(bytes, || {
            let n = dice.between(5, 22) as usize;
            digits(&mut dice, n) + " "
        }),
    ));
    sorts.push((
        "base64",
        until(bytes, || {
            const SIGNS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            (0..76).map(|_| char::from(SIGNS[dice.below(64) as usize])).collect::<String>() + "\n"
        }),
    ));
    sorts.push((
        "number tables",
        until(bytes, || {
            (0..8)
                .map(|_| {
                    let n = dice.between(1, 6) as usize;
                    digits(&mut dice, n)
                })
                .collect::<Vec<_>>()
                .join(" ")
                + "\n"
        }),
    ));
    sorts
}
