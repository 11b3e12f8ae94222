// A row of the input: where its first element is, and whether it is a row at all or padding.
struct InputRow {
    at: u32,
    inside: bool,
}
