//! Amounts as people write and read them: `256M`, `500m`, `1 GiB`, `3m ago`.

use jiff::Timestamp;

/// Bytes: a whole number with an optional K, M, G or T, each 1,024 times the one before; `MB` and `MiB` mean the same.
///
/// # Errors
/// A sentence that names the forms.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || {
        format!(
            "{text:?} is no amount of bytes: write a number and a unit, K, M, G or T (1,024 each), such as 256M or 1.5G"
        )
    };
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let unit = unit.trim().to_ascii_uppercase();
    let power = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" if unit.is_empty() || unit == "B" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(bad()),
    };
    let scale = 1_u64 << (10 * power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).ok_or_else(bad);
    }
    let fraction: f64 = number.parse().map_err(|_| bad())?;
    // Amounts above 2^53 bytes are outside every quota's range; below it a double is exact enough.
    if fraction * scale as f64 > 9e15 { Err(bad()) } else { Ok((fraction * scale as f64) as u64) }
}

/// CPU in thousandths of a core: `500m`, `0.5` or `2`.
///
/// # Errors
/// A sentence that names the forms.
pub fn parse_cpu(text: &str) -> Result<u64, String> {
    let bad = || {
        format!(
            "{text:?} is no amount of CPU: write thousandths of a core such as 500m, or cores such as 0.5 or 2"
        )
    };
    if let Some(millis) = text.strip_suffix('m') {
        return millis.parse().map_err(|_| bad());
    }
    let cores: f64 = text.parse().map_err(|_| bad())?;
    if (0.0..=1e6).contains(&cores) { Ok((cores * 1000.0).round() as u64) } else { Err(bad()) }
}

/// A count, or a rate per second with or without `/s`.
///
/// # Errors
/// A sentence.
pub fn parse_count(text: &str) -> Result<u64, String> {
    text.strip_suffix("/s")
        .unwrap_or(text)
        .parse()
        .map_err(|_| format!("{text:?} is not a whole number such as 100"))
}

/// Bytes, in the largest unit that leaves at least 1: `512 MiB`, `1.5 GiB`.
pub fn bytes(amount: u64) -> String {
    let mut value = amount as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{amount} B") } else { format!("{} {unit}", trimmed(value)) };
        }
        value /= 1024.0;
    }
    format!("{} TiB", trimmed(value))
}

/// CPU: `500m`, and whole cores as `2`.
pub fn cpu(millis: u64) -> String {
    if millis > 0 && millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

/// How long it has been, in the unit that fits: `12s`, `3m`, `5h`, `2d`. A time that is still to come counts as now.
pub fn since(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago it was: `3m ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", since(then, now))
}

/// One decimal at most.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_be_read_in_every_usual_form() {
        for (text, want) in
            [("1", 1), ("1K", 1024), ("256M", 256 << 20), ("1.5GiB", 3 << 29), ("2 gb", 2 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(want), "{text}");
        }
        for text in ["", "M", "-1", "1X", "1.2.3G", "99999999999T", "1I"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpu_must_be_read_as_millis_or_cores() {
        assert_eq!(parse_cpu("500m"), Ok(500));
        assert_eq!(parse_cpu("0.25"), Ok(250));
        assert_eq!(parse_cpu("2"), Ok(2000));
        for text in ["", "m", "-1", "x", "nan"] {
            assert!(parse_cpu(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_must_be_shown_short() {
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(bytes(17), "17 B");
        assert_eq!((cpu(500), cpu(2000), cpu(1500)), ("500m".into(), "2".into(), "1500m".into()));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(since(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:03:10Z")), "3m");
        assert_eq!(since(at("2026-01-02T00:00:00Z"), at("2026-01-01T00:00:00Z")), "0s");
    }
}
