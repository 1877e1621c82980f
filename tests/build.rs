//! Builds the bench's programs and puts them at `OUT_DIR/bench.bpf.o`, for the lab to carry within itself.
//!
//! `SCREENER_BENCH_OBJECT` names an object that was built elsewhere, and then nothing is compiled here.

#[path = "../xtask/src/bpf_object.rs"]
mod bpf_object;

fn main() {
    let object = bpf_object::Object {
        binary: "screener-bench",
        features: "bench",
        file: "bench.bpf.o",
        variable: "SCREENER_BENCH_OBJECT",
    };
    object.make();
}
