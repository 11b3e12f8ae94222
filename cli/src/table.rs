//! Tables and numbers as text.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

pub use crate::figures::{count, figure};

/// A single rule, under the header.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table. The first `left` columns are aligned to the left, the others to the right.
pub fn new<const N: usize>(header: [&str; N], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
