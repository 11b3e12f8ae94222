// What a source knows of the input under the kernel: the rows and columns, found once for all k. The host writes out
// `Place`, which keeps them.
//
// A corner_* file says where the kernel's corner is, in `corner`, and how far apart columns are, in `column_stride`.

// The first input under the kernel, which may lie in the padding, and the nearest column that does not.
struct Corner {
    // Of the group's first channel.
    image: u32,
    top: i32,
    left: i32,
    column: u32,
}

// A row or a column that may lie in the padding: where it is, and whether it is one at all.
struct Line {
    at: u32,
    inside: bool,
}

// Where the corner's column is in a row.
fn row(corner: Corner, below: i32) -> Line {
    let y = corner.top + below;
    let inside = inside(y, params.in_height);
    return Line((select(0u, u32(y), inside) * params.in_width + corner.column) * column_stride(), inside);
}

// How far a column is from the corner's.
fn column(corner: Corner, right: i32) -> Line {
    let x = corner.left + right;
    let inside = inside(x, params.in_width);
    return Line(select(0u, u32(x) - corner.column, inside) * column_stride(), inside);
}
