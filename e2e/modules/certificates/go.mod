module sluice.dev/e2e/certificates

go 1.24.0
