// Four rows at a time: a matrix of sums, a column for each row. Rows past the last are the last one again, and are
// not stored.

const ROWS: u32 = 4u;
alias Sums = mat4x4<f32>;

// Four k of each row.
fn load_rows(row: u32, k: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        fetch(k, place(row, 0u)),
        fetch(k, place(row + 1u, 0u)),
        fetch(k, place(row + 2u, 0u)),
        fetch(k, place(row + 3u, 0u)),
    );
}

fn store_rows(row: u32, channel: u32, sums: Sums) {
    store_pixel(row, 0u, channel, sums[0]);
    store_pixel(row + 1u, 0u, channel, sums[1]);
    store_pixel(row + 2u, 0u, channel, sums[2]);
    store_pixel(row + 3u, 0u, channel, sums[3]);
}
