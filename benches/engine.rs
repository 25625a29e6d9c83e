//! What a review costs, part by part: `cargo bench --bench engine [filter]`.

mod fixture;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use reach::admission;
use reach::inject::pod::Pod;
use reach::inject::{Target, patch, plan};
use serde_json::Value;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    reviews(&mut criterion);
    parts(&mut criterion);
    criterion.final_summary();
}

/// Whole reviews.
fn reviews(criterion: &mut Criterion) {
    let snapshot = fixture::snapshot(fixture::proxy(), 0);
    let with_ca = fixture::snapshot(fixture::proxy().into_iter().chain([fixture::corporate_ca()]), 0);
    let metrics = fixture::metrics();
    let mut group = criterion.benchmark_group("review");
    for (name, review, snapshot) in [
        ("injected", fixture::review(), &snapshot),
        ("injected with a volume", fixture::review(), &with_ca),
        ("not matching", fixture::unmatched(), &snapshot),
        ("already injected", fixture::injected(&snapshot), &snapshot),
    ] {
        let bytes = fixture::bytes(&review);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| admission::review(black_box(&bytes), snapshot, &metrics));
        });
    }
    group.finish();
}

/// The steps of the injected review.
fn parts(criterion: &mut Criterion) {
    let snapshot = fixture::snapshot(fixture::proxy(), 0);
    let review = fixture::review();
    let object = review["request"]["object"].to_string();
    let pod = Pod::from_slice(object.as_bytes()).expect("a pod");
    let namespace = snapshot.namespace("shop").expect("a namespace");
    let planned = plan(&namespace, &pod, Target::Pod).expect("a readable pod").expect("a plan");
    let written = patch::write(&planned, &pod, "").expect("a patch");
    let mut group = criterion.benchmark_group("part");
    group
        .bench_function("read the pod", |bench| bench.iter(|| Pod::from_slice(black_box(object.as_bytes()))));
    group.bench_function("read everything", |bench| {
        bench.iter(|| serde_json::from_str::<Value>(black_box(&object)));
    });
    group.bench_function("plan", |bench| bench.iter(|| plan(&namespace, black_box(&pod), Target::Pod)));
    group.bench_function("patch", |bench| bench.iter(|| patch::write(black_box(&planned), &pod, "")));
    group.bench_function("base64", |bench| {
        bench.iter(|| base64_simd::STANDARD.encode_to_string(black_box(&written)));
    });
    group.finish();
}
