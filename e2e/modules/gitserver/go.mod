module sluice.dev/e2e/gitserver

go 1.24.0
