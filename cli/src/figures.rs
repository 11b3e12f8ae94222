//! Numbers as text. The charts of `web/page` have this file, too.

/// A whole number in groups of three digits.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with three significant digits, without an exponent unless it is tiny.
pub fn figure(number: f64) -> String {
    match number.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 1.0 => format!("{number:.2}"),
        size if size >= 0.001 => format!("{number:.4}"),
        _ => format!("{number:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_text() {
        assert_eq!([0, 12, 999, 1000, 19_331_547_136].map(count), ["0", "12", "999", "1,000", "19,331,547,136"]);
        assert_eq!([0.0, 123.4, 12.34, 1.234, 0.01234].map(figure), ["0", "123", "12.3", "1.23", "0.0123"]);
        assert_eq!(figure(1.25e-7), "1.25e-7");
    }
}
