package natstest

import "flag"

// WideParallel lets more parallel tests run at once than there are processors, where the command line does not say how
// many: tests in real time mostly wait, for leases to end or for other processes. It is to be called in TestMain.
func WideParallel() {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", "8")
	}
}
