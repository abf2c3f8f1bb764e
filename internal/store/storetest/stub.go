package storetest
import "context"
var settleTests, claimTests, nodeTests, noticeTests, accountTests, logTests, schemaTests []test
func newCancelled(f *fixture) (context.Context, context.CancelFunc) { return context.WithTimeout(f.Context(), 0) }
