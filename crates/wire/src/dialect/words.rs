//! Words that headers and frames share: what happens to a stream when its reader or its upstream
//! goes away.

/// Whether a stream outlives its reader (`tidegate-resume`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// It goes with its reader.
    #[default]
    Off,
    /// A journal in memory keeps it for readers that come back.
    Memory,
    /// The journal is also written to the store.
    Durable,
}

/// What is done when the upstream breaks off inside the content (`tidegate-recover`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recover {
    /// The stream ends with an error.
    #[default]
    Never,
    /// The reply is begun again, and the client told that what it has is void.
    Restart,
    /// The model is asked to go on where it stopped.
    Continue,
}

impl Resume {
    /// Every word, in the order it is explained in.
    pub const WORDS: &[(&str, Resume)] =
        &[("off", Resume::Off), ("memory", Resume::Memory), ("durable", Resume::Durable)];

    /// Its word.
    pub fn word(self) -> &'static str {
        word(Self::WORDS, self)
    }
}

impl Recover {
    /// Every word, in the order it is explained in.
    pub const WORDS: &[(&str, Recover)] =
        &[("never", Recover::Never), ("restart", Recover::Restart), ("continue", Recover::Continue)];

    /// Its word.
    pub fn word(self) -> &'static str {
        word(Self::WORDS, self)
    }
}

fn word<T: PartialEq>(words: &[(&'static str, T)], meant: T) -> &'static str {
    words.iter().find(|(_, value)| *value == meant).map_or("", |(word, _)| word)
}

/// What `word` means among `words`, if it is one of them.
pub fn meaning<T: Copy>(words: &[(&str, T)], word: &str) -> Option<T> {
    words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_means_what_it_is_the_word_of() {
        for (word, resume) in Resume::WORDS {
            assert_eq!((resume.word(), meaning(Resume::WORDS, word)), (*word, Some(*resume)));
        }
        for (word, recover) in Recover::WORDS {
            assert_eq!((recover.word(), meaning(Recover::WORDS, word)), (*word, Some(*recover)));
        }
        assert_eq!(meaning(Resume::WORDS, "Off"), None);
        assert_eq!((Resume::default(), Recover::default()), (Resume::Off, Recover::Never));
    }
}
