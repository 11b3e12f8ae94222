// A single row at a time: a vector of four sums, one a channel.

const ROWS: u32 = 1u;
alias Sums = vec4<f32>;

// Four k of a row.
fn load_rows(row: u32, k: u32) -> vec4<f32> {
    return fetch(k, place(row, 0u));
}

fn store_rows(row: u32, channel: u32, sums: Sums) {
    store_pixel(row, 0u, channel, sums);
}
