// The first process of each pod: ../build.sh builds main.go.
module reach/tests/node/pause

go 1.26.0
