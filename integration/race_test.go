//go:build race

package integration

// raceDetector says that the tests run with the race detector, and so many times
// slower.
const raceDetector = true
