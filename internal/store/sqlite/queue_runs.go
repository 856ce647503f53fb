package sqlite

import (
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// runsMost is of how many executions it is remembered what they are.
const runsMost = 8192

// runs remembers what executions are that were claimed here: what does not change while they last need not be read again
// when they end. One that is not known is read.
type runs struct {
	mu sync.Mutex
	of map[string]run // by job
}

// run is an execution. A job in quarantine is none: its lane is not its home.
type run struct {
	token     int64
	lane, typ string
	started   time.Time
}

func (r *runs) put(jobs []store.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil || len(r.of)+len(jobs) > runsMost {
		r.of = map[string]run{}
	}
	for _, j := range jobs {
		if _, _, class := store.SplitLane(j.Lane); class != store.Quarantine {
			r.of[j.ID] = run{j.Token, j.Lane, j.Type, j.StartedAt}
		}
	}
}

// known gives the outcomes' places by the tokens of their executions, and those executions; unknown the places of others.
func (r *runs) known(os []store.Outcome) (tokens map[int64][]int, all []run, unknown []int) {
	tokens, all = map[int64][]int{}, make([]run, len(os))
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, o := range os {
		if x, ok := r.of[o.ID]; ok && x.token == o.Token {
			all[i], tokens[o.Token] = x, append(tokens[o.Token], i)
		} else {
			unknown = append(unknown, i)
		}
	}
	return tokens, all, unknown
}

// forget forgets executions that are over.
func (r *runs) forget(os []store.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range os {
		delete(r.of, o.ID)
	}
}
