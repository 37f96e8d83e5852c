package guest

import (
	"context"
	"time"
)

// LaunchAgain is Launch with another rule for starting an official runner again.
func LaunchAgain(ctx context.Context, ch Channel, p Program, pause time.Duration, most int) error {
	return launch(ctx, ch, p, relaunch{pause: pause, most: most})
}
