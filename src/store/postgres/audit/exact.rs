//! JSON that is read as it is kept, or not at all.

use std::error::Error as StdError;

use serde_json::Value;
use tokio_postgres::types::{FromSql, Type};

/// A `jsonb` of which nothing is lost in reading. The column keeps numbers of any length, and a `Value` has no more digits
/// than a double: a digit that somebody added behind those would be seen by nobody who reads the events back.
#[derive(Debug, PartialEq)]
pub(super) struct ExactJson(pub(super) Value);

impl<'a> FromSql<'a> for ExactJson {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        let value = Value::from_sql(kind, raw)?;
        // Behind the byte of the format's version, it is text.
        let text = std::str::from_utf8(raw.get(1..).unwrap_or_default())?;
        if numbers(text).all(is_exact) { Ok(Self(value)) } else { Err("a number has too many digits".into()) }
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSONB
    }
}

/// The numbers in a text that is known to be JSON.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            rest = rest.get(start..)?;
            if let Some(inside) = rest.strip_prefix('"') {
                rest = behind_string(inside)?;
                continue;
            }
            let is_of_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
            let (number, behind) = rest.split_at(rest.find(|c| !is_of_number(c)).unwrap_or(rest.len()));
            rest = behind;
            return Some(number);
        }
    })
}

/// What stands behind the end of a string that has begun.
fn behind_string(mut rest: &str) -> Option<&str> {
    loop {
        let end = rest.find(['"', '\\'])?;
        let (mark, behind) = rest.get(end..)?.split_at_checked(1)?;
        if mark == "\"" {
            return Some(behind);
        }
        let mut escaped = behind.chars();
        escaped.next();
        rest = escaped.as_str();
    }
}

/// Whether an integer type or a double holds the number.
fn is_exact(text: &str) -> bool {
    let is_whole = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
    is_whole
        || text.parse::<f64>().is_ok_and(|number| {
            // The shortest digits that give the same double: what is written of it.
            number.is_finite() && Decimal::of(&number.to_string()) == Decimal::of(text)
        })
}

/// A number as its digits, without zeros at either end, and the place of the first of them before the point.
#[derive(Debug, PartialEq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    place: i64,
}

impl Decimal {
    fn of(text: &str) -> Option<Self> {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let significant = all.trim_start_matches('0');
        if significant.is_empty() {
            return Some(Self { is_negative: false, digits: String::new(), place: 0 });
        }
        let leading = i64::try_from(all.len() - significant.len()).ok()?;
        let place = i64::try_from(whole.len()).ok()?.checked_sub(leading)?;
        let place = place.checked_add(exponent.parse().ok()?)?;
        Some(Self { is_negative, digits: significant.trim_end_matches('0').to_owned(), place })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio_postgres::types::{FromSql, Type};

    use super::ExactJson;

    fn read(text: &str) -> Option<ExactJson> {
        ExactJson::from_sql(&Type::JSONB, &[&[1], text.as_bytes()].concat()).ok()
    }

    #[test]
    fn numbers_that_a_double_holds_are_read() {
        let text = r#"{"a": [1, -2.50, 0.1, 1e3, 0, 0.0, 100000000000000000000, 18446744073709551615], "b\"1.00000000000000000001": "0.10000000000000000000001"}"#;
        assert!(read(text).is_some());
        let large = format!("[1{}, 0.{}1]", "0".repeat(300), "0".repeat(300));
        assert!(read(&large).is_some());
        assert_eq!(read("[5e-324, 1.7976931348623157e308]"), Some(ExactJson(json!([5e-324, f64::MAX]))));
    }

    #[test]
    fn digits_that_would_be_lost_are_refused() {
        for text in [
            "0.10000000000000000000001",
            "18446744073709551617",
            "1e400",
            "[\"\\\\\", 3.00000000000000000001]",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
