package quotas

import "testing"

// holdingNow is a quota in which the jobs of these sequences have slots.
func holdingNow(sequences ...uint64) (s Slots) {
	for _, sequence := range sequences {
		s.Holders = append(s.Holders, Claim{Nonce: nonceOf(sequence)})
	}
	return s
}

func TestLate(t *testing.T) {
	var d departures
	d.note(holdingNow(1), Slots{Waiters: []Claim{{Nonce: nonceOf(1)}}}, 5) // it stays
	d.note(holdingNow(1, 2), holdingNow(2), 10)
	d.note(Slots{Waiters: []Claim{{Nonce: nonceOf(3)}}}, Slots{}, 12)
	for name, row := range map[string]struct {
		kind     opKind
		job      uint64
		revision uint64
		want     bool
	}{
		"a job that left since":               {opEnter, 1, 9, true},
		"that waited":                         {opEnter, 3, 11, true},
		"one that had left":                   {opEnter, 1, 10, false},
		"that is there":                       {opEnter, 2, 1, false},
		"that is not known":                   {opEnter, 4, 1, false},
		"leaving may come late":               {opLeave, 1, 9, false},
		"of a release that sends no revision": {opEnter, 1, 0, false},
	} {
		r := request{Revision: row.revision, Ops: []op{{Kind: opLeave, Claim: Claim{Nonce: nonceOf(9)}}, {Kind: row.kind, Claim: Claim{Nonce: nonceOf(row.job)}}}}
		if got := d.late(r); got != row.want {
			t.Errorf("%s: late %t, want %t", name, got, row.want)
		}
	}
}

// Of departures the last few thousand are known; who rests on less is late.
func TestDeparturesAreForgotten(t *testing.T) {
	var d departures
	const all = 5 * departuresKept
	for sequence := uint64(1); sequence <= all; sequence++ {
		d.note(holdingNow(sequence), Slots{}, sequence)
	}
	if n := len(d.recent) + len(d.older); n < departuresKept || n > 2*departuresKept {
		t.Errorf("%d are kept", n)
	}
	if !d.since(nonceOf(all+1), all-2*departuresKept-1) || d.since(nonceOf(all+1), all-departuresKept) {
		t.Errorf("horizon %d of %d", d.horizon, all)
	}
	if !d.since(nonceOf(all), all-1) || d.since(nonceOf(all), all) {
		t.Error("the last is not known")
	}
}
