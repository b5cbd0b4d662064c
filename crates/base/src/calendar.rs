//! Wall time as text: RFC 3339 in UTC, to the second; days and months, and when a month ends.
//!
//! Civil date from a day number by Howard Hinnant's algorithm: years are counted from 1 March, so
//! that the leap day is the last of its year and months follow one linear formula.

/// Year, month and day of the day numbered `days` after the Unix epoch.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// `seconds` after the Unix epoch, such as `2026-11-22T20:34:00Z`.
pub fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    let second = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The seconds after the Unix epoch that `text` names, if it is written as [`rfc3339`] writes it.
pub fn rfc3339_seconds(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let time = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    let seconds = u64::from(read_date(text.get(..10)?)?) * 86_400 + time;
    // What is no time of a day, or written otherwise, comes out as something else.
    (rfc3339(seconds) == text).then_some(seconds)
}

/// The day numbered `days` after the epoch, such as `2026-11-22`.
pub fn date(days: u32) -> String {
    let (year, month, day) = civil(days.into());
    format!("{year:04}-{month:02}-{day:02}")
}

/// The number of a day as [`date`] writes it; `None` if there is no such day, or it is before 1970.
pub fn read_date(text: &str) -> Option<u32> {
    let digits = |part: &str, len: usize| {
        let fits = part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u32>().ok().filter(|_| fits)
    };
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let days = u32::try_from(first_day(year * 12 + month - 1)).ok()? + day - 1;
    // The 31st of a shorter month would be a day of the next.
    (date(days) == text).then_some(days)
}

/// The number of the month that `seconds` after the epoch lie in: months since the year 0.
pub fn month_of(seconds: u64) -> u32 {
    let (year, month, _) = civil(seconds / 86_400);
    u32::try_from(year * 12 + month - 1).unwrap_or(u32::MAX)
}

/// A month as text, such as `2026-11`.
pub fn month_name(month: u32) -> String {
    format!("{:04}-{:02}", month / 12, month % 12 + 1)
}

/// The first day of a month, in days after the epoch; of one before 1970, that of the epoch. By the
/// inverse of [`civil`]'s formula.
pub fn first_day(month: u32) -> u64 {
    let (year, month) = (u64::from(month / 12), u64::from(month % 12 + 1));
    let year = if month > 2 { year } else { year.saturating_sub(1) };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

/// Seconds from `seconds` after the Unix epoch to 00:00 UTC on the next first of a month.
pub fn to_next_month(seconds: u64) -> u64 {
    let days = seconds / 86_400;
    let first = (1..=31).find(|n| civil(days + n).2 == 1).unwrap_or(31);
    (days + first) * 86_400 - seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_print_as_the_calendar_has_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(1_795_379_640), "2026-11-22T20:34:00Z");
        assert_eq!(rfc3339(4_107_542_399), "2100-02-28T23:59:59Z");
    }

    #[test]
    fn what_is_printed_is_read_and_nothing_else() {
        for seconds in (0..253_402_300_799).step_by(86_400 * 97 + 12_345) {
            assert_eq!(rfc3339_seconds(&rfc3339(seconds)), Some(seconds), "{}", rfc3339(seconds));
        }
        for text in [
            "",
            "2026-11-22",
            "2026-02-30T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22 20:34:00Z",
            "2026-13-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_two_centuries_is_the_one_it_is_called() {
        let mut month = month_of(0);
        for days in 0..80_000 {
            assert_eq!(read_date(&date(days)), Some(days));
            let of = month_of(u64::from(days) * 86_400 + 86_399);
            if of != month {
                assert_eq!((of, first_day(of)), (month + 1, u64::from(days)));
                month = of;
            }
        }
        assert_eq!((date(0), month_name(month_of(0))), ("1970-01-01".to_owned(), "1970-01".to_owned()));
        for bad in [
            "",
            "2026",
            "2026-11",
            "2026-11-31",
            "2026-02-29",
            "2026-13-01",
            "2026-00-01",
            "1969-12-31",
            "26-11-01",
            "2026-1-01",
            "2026-11-01x",
            "+026-11-01",
            "2026-11-00",
        ] {
            assert_eq!(read_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_month_ends_at_midnight_before_its_first() {
        for (now, next) in [
            (1_795_379_640, "2026-12-01T00:00:00Z"),
            (1_798_761_599, "2027-01-01T00:00:00Z"),
            (1_832_976_000, "2028-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(now + to_next_month(now)), next);
        }
    }
}
