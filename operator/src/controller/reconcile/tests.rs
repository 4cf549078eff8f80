use super::*;

#[tokio::test(start_paused = true)]
async fn a_time_that_has_passed_is_never_a_busy_loop() {
    assert!(instant(0, 10_000) > Instant::now());
}
