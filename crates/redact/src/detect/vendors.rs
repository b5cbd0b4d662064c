//! Vendors of keys: the prefix, what follows it, and how much of that.

/// Characters that a secret is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// Letters and digits.
    Alnum,
    /// Capitals and digits.
    Upper,
    /// Hexadecimal.
    Hex,
    /// Base64 for URLs: letters, digits, `-` and `_`.
    Url,
    /// The same with dots: several parts.
    Dotted,
    /// Base64 with `+`, `/` and `=`.
    Base64,
}

impl Set {
    pub(super) fn has(self, b: u8) -> bool {
        match self {
            Set::Alnum => b.is_ascii_alphanumeric(),
            Set::Upper => b.is_ascii_uppercase() || b.is_ascii_digit(),
            Set::Hex => b.is_ascii_hexdigit(),
            Set::Url => b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'),
            Set::Dotted => b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
            Set::Base64 => b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='),
        }
    }
}

/// Prefix, rule, characters, and the least and most of them behind the prefix.
pub(super) type Vendor = (&'static str, &'static str, Set, usize, usize);

pub(super) const VENDORS: [Vendor; 74] = [
    ("sk-ant-", "anthropic", Set::Url, 20, 200),
    ("sk-proj-", "openai", Set::Url, 20, 240),
    ("sk-svcacct-", "openai", Set::Url, 20, 240),
    ("sk-or-v1-", "openrouter", Set::Hex, 32, 80),
    ("sk-", "openai", Set::Url, 20, 240),
    ("AKIA", "aws_key_id", Set::Upper, 16, 16),
    ("ASIA", "aws_key_id", Set::Upper, 16, 16),
    ("ABIA", "aws_key_id", Set::Upper, 16, 16),
    ("ghp_", "github", Set::Alnum, 36, 255),
    ("gho_", "github", Set::Alnum, 36, 255),
    ("ghu_", "github", Set::Alnum, 36, 255),
    ("ghs_", "github", Set::Alnum, 36, 255),
    ("ghr_", "github", Set::Alnum, 36, 255),
    ("github_pat_", "github", Set::Url, 30, 255),
    ("glpat-", "gitlab", Set::Dotted, 20, 64),
    ("glrt-", "gitlab", Set::Url, 20, 64),
    ("glptt-", "gitlab", Set::Hex, 40, 40),
    ("gldt-", "gitlab", Set::Url, 20, 64),
    ("xoxb-", "slack", Set::Url, 20, 255),
    ("xoxp-", "slack", Set::Url, 20, 255),
    ("xoxa-", "slack", Set::Url, 20, 255),
    ("xoxr-", "slack", Set::Url, 20, 255),
    ("xoxs-", "slack", Set::Url, 20, 255),
    ("xoxe", "slack", Set::Dotted, 20, 255),
    ("xapp-", "slack", Set::Url, 20, 255),
    ("hooks.slack.com/services/", "slack_hook", Set::Base64, 30, 80),
    ("AIza", "google", Set::Url, 35, 35),
    ("ya29.", "google_oauth", Set::Url, 20, 512),
    ("GOCSPX-", "google_oauth", Set::Url, 28, 28),
    ("sk_live_", "stripe", Set::Alnum, 16, 255),
    ("sk_test_", "stripe", Set::Alnum, 16, 255),
    ("rk_live_", "stripe", Set::Alnum, 16, 255),
    ("rk_test_", "stripe", Set::Alnum, 16, 255),
    ("whsec_", "stripe", Set::Base64, 24, 80),
    ("SG.", "sendgrid", Set::Dotted, 60, 70),
    ("npm_", "npm", Set::Alnum, 36, 36),
    ("pypi-", "pypi", Set::Url, 50, 255),
    ("hf_", "huggingface", Set::Alnum, 30, 40),
    ("dop_v1_", "digitalocean", Set::Hex, 64, 64),
    ("doo_v1_", "digitalocean", Set::Hex, 64, 64),
    ("shpat_", "shopify", Set::Hex, 32, 32),
    ("shpss_", "shopify", Set::Hex, 32, 32),
    ("shpca_", "shopify", Set::Hex, 32, 32),
    ("sq0atp-", "square", Set::Url, 22, 22),
    ("sq0csp-", "square", Set::Url, 43, 43),
    ("key-", "mailgun", Set::Hex, 32, 32),
    ("LTAI", "alibaba_key_id", Set::Alnum, 12, 26),
    ("AKID", "tencent_key_id", Set::Alnum, 32, 36),
    ("dapi", "databricks", Set::Hex, 32, 36),
    ("dp.pt.", "doppler", Set::Alnum, 40, 48),
    ("lin_api_", "linear", Set::Alnum, 32, 48),
    ("ntn_", "notion", Set::Alnum, 40, 60),
    ("secret_", "notion", Set::Alnum, 43, 43),
    ("PMAK-", "postman", Set::Url, 59, 59),
    ("glsa_", "grafana", Set::Url, 32, 48),
    ("glc_", "grafana", Set::Base64, 32, 400),
    ("NRAK-", "newrelic", Set::Upper, 27, 27),
    ("ATATT3", "atlassian", Set::Url, 100, 255),
    ("hvs.", "vault", Set::Url, 24, 200),
    ("hvb.", "vault", Set::Url, 24, 300),
    ("figd_", "figma", Set::Url, 38, 60),
    ("gsk_", "groq", Set::Alnum, 40, 64),
    ("pplx-", "perplexity", Set::Alnum, 40, 64),
    ("xai-", "xai", Set::Alnum, 60, 100),
    ("r8_", "replicate", Set::Alnum, 37, 40),
    ("tvly-", "tavily", Set::Url, 28, 60),
    ("sbp_", "supabase", Set::Hex, 40, 40),
    ("rubygems_", "rubygems", Set::Hex, 48, 48),
    ("dckr_pat_", "docker", Set::Url, 24, 40),
    ("sntrys_", "sentry", Set::Base64, 40, 400),
    ("AGE-SECRET-KEY-1", "age", Set::Upper, 58, 58),
    ("AccountKey=", "azure_storage", Set::Base64, 80, 96),
    ("SharedAccessKey=", "azure", Set::Base64, 40, 96),
    ("EAACEdEose0cBA", "facebook", Set::Alnum, 20, 255),
];
