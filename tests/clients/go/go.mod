module reach.dev/tests/clients/go

go 1.26
