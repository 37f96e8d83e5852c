# Prints "yes" if $dir holds a runner program.
if [ -x "$(home "$dir")/bin/Runner.Listener" ]; then echo yes; fi
