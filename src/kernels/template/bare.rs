//! Shaders without what only readers need: comments, empty lines, and all but one column of indentation, by which
//! functions are told from what stands in them. It happens when the library is compiled, so that a web page's module is
//! smaller.

/// How many bytes of a text are kept.
pub const fn length(text: &str) -> usize {
    let (text, mut at, mut length) = (text.as_bytes(), 0, 0);
    while at < text.len() {
        let [start, end] = line(text, at);
        length += kept(text, at, start, end);
        at = end;
    }
    length
}

/// What is kept of a text, `LENGTH` bytes.
pub const fn bytes<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let (text, mut bytes, mut at, mut filled) = (text.as_bytes(), [b' '; LENGTH], 0, 0);
    while at < text.len() {
        let [start, end] = line(text, at);
        let kept = kept(text, at, start, end);
        let mut back = 1;
        while back <= kept && back <= end - start {
            bytes[filled + kept - back] = text[end - back];
            back += 1;
        }
        filled += kept;
        at = end;
    }
    bytes
}

/// Where the code of the line that begins at a byte starts, and where the next line does.
const fn line(text: &[u8], at: usize) -> [usize; 2] {
    let mut start = at;
    while start < text.len() && text[start] == b' ' {
        start += 1;
    }
    let mut end = start;
    while end < text.len() && text[end] != b'\n' {
        end += 1;
    }
    [start, if end < text.len() { end + 1 } else { end }]
}

/// How many bytes of a line are kept.
const fn kept(text: &[u8], at: usize, start: usize, end: usize) -> usize {
    let is_empty = start == end || text[start] == b'\n';
    let is_comment = end - start > 2 && text[start] == b'/' && text[start + 1] == b'/' && text[start + 2] != b'%';
    match (is_empty || is_comment, start > at) {
        (true, _) => 0,
        (false, true) => end - start + 1,
        (false, false) => end - start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_statements_are_kept() {
        const TEXT: &str = "// A.\n//# B.\n\nfn c() {\n    //% if d\n        e(); // f\n    //\n    // g\n    //% endif\n}\n\n  \nh\n  ";
        const BARE: [u8; length(TEXT)] = bytes(TEXT);
        assert_eq!(str::from_utf8(&BARE), Ok("fn c() {\n //% if d\n e(); // f\n //% endif\n}\nh\n"));
    }
}
