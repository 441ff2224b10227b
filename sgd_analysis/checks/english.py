"""Everything the checks say, apart from how they find it out."""

ENGLISH = {
    "not_yet": "not yet: {what}",
    # Right
    "right": "right",
    "right_epoch": "right: epoch {epoch}",
    "right_goes_on": "right, and no epoch of the first {epochs} has ended on a loss below epsilon",
    "right_weights": "right: epoch {epoch}, with the weights {weights:.1f}",
    "right_listing": "right: {n} lines, one for each of the {n} points of the small example",
    # The function cannot be run
    "not_a_function": "give the function itself, without calling it; this is {given!r}",
    "signature": "it should take {names}, in this order ({message})",
    "hole": "there is still a hole, “...”{where}",
    "no_grad": "the step itself must not be followed by autograd: "
    "put it under torch.no_grad(){where}",
    "no_gradient": "at the step, w.grad is None: loss.backward() comes before it, and w "
    "has to stay the same tensor (w -= …, not w = w - …){where}",
    "before_backward": "at the step, w.grad is None: loss.backward() comes before it{where}",
    "replaced": "w has become another tensor: change the one that is given, as w -= … does; "
    "w = w - … makes another{where}",
    "no_way_back": "backward() finds no way from the loss to w: is the loss made of f(w, x), and w "
    "the tensor that was given?{where}",
    "zero_first": "w.grad is None before the first backward(): clear it after the step, or with "
    "w.grad = None{where}",
    "returns_no_gradient": "what is taken for the gradient is None: backward() returns nothing, "
    "the gradient is in w.grad{where}",
    "swapped": "f is given the weights second: it is f(w, x), the weights first",
    "error": "{kind}: {message}{where}",
    "hinted": "{hint}; {told}",
    "not_scalar": "the loss has one number a point: take their mean",
    "not_a_list": "the optimizer wants a list of what it changes, [w]",
    "criterion": "MSELoss() has to be made first, without data, and is then asked: "
    "criterion = torch.nn.MSELoss(), criterion(f(w, x), y)",
    "not_called": "a function is not called: put its () behind it, as in .mean() or .item()",
    "number": "keep the loss a tensor until backward(): .item(), float() and NumPy leave autograd",
    "out_of_bounds": "count up to len(batch) or len(t): the last batch may be smaller, and t "
    "have fewer points",
    "power": "a power is written **, as in (y - f(w, x)) ** 2; ^ is something else",
    "not_a_method": "the method should be a class of torch.optim, as torch.optim.Adam, whose "
    "step() needs nothing; this is {given}",
    "where": " (line {line})",
    "where_code": " (line {line}: {code})",
    "endless": "it does not end: f has been called {calls} times, and {enough} are enough; "
    "is the epoch counted up?",
    # The steps
    "no_backward": "w is what it was, and it has no gradient: does anything call loss.backward()?",
    "no_step": "w is what it was: is there a step, w -= eta * w.grad, and is w.grad set to zero "
    "only after it?",
    "new_tensor": "w is what it was, though there is a gradient in w.grad: change w itself, as "
    "w -= … does; w = w - … makes another tensor",
    "copy": "the w that is given is what it was, and f is asked at other weights: change that w "
    "itself, and no copy of it",
    "only_backward": "w is what it was, though there is a gradient in w.grad: is there a step, "
    "w -= eta * w.grad?",
    "no_optimizer_step": "w is what it was; the order is zero_grad(), backward(), step()",
    "not_stepped": "w is what it was, and no optimizer makes a step: optimizer.step() is missing, "
    "or its ()",
    "other_tensor": "w is what it was: the optimizer changes another tensor; make it of the w that "
    "is given, [w]",
    "uphill": "w went uphill; which sign takes it down?",
    "sum": "that is the sum of the squares; take their mean (its step is {n} times too long)",
    "unsquared": "the differences y - f(w, x) are not squared; take the mean of their squares",
    "square_of_mean": "that is the square of the mean of the differences; take the mean of their "
    "squares",
    "no_eta": "the step is the whole gradient; multiply it by eta",
    "unsquared_sample": "the differences y - f(w, x) are not squared; the loss of a "
    "sample is its square",
    "sum_by_all": "the sum of the squares is divided by {all}, the number of all points; divide "
    "it by the number of those that are given, len(t), or len(batch) where it is of a batch",
    "sum_by_t": "the sum over a batch of {n} points is divided by len(t); divide it by len(batch)",
    "sum_by_minibatch": "the sum over a batch of {n} points is divided by minibatch; divide it by "
    "len(batch)",
    "divided_again": "the step is {by} times too short: is the mean of the squares divided once "
    "more, by {by}?",
    "divided_sample": "the step is {by} times too short: is the loss of the sample, which is the "
    "square alone, divided by {by}?",
    "half": "the step is half as long as eta times the gradient of the loss: is there a factor ½, "
    "or is a 2 of the derivative missing?",
    "twice": "the step is twice as long as eta times the gradient of the loss: is there a factor 2 "
    "too many?",
    "length": "the step has the right direction and is {ratio:.3g} times as long as it should be: "
    "{eta:.3g} times the gradient, where eta is {given}; is it the eta that was given?",
    "kept": "the gradients of the steps before are still in w.grad; clear it at each step",
    "elsewhere": "{step} {number} leads from ({before:.4g}) to ({expected:.4g}), and your w is "
    "({after:.4g})",
    "of_gradient_descent": "step",
    "of_method": "{method}'s step",
    "once": "w moves once an epoch, and should with each {what}: the step belongs in the inner "
    "loop",
    "sample": "sample",
    "batch": "batch",
    "step": "step",
    "one_by_one": "the weights are changed one after the other; compute the whole gradient first, "
    "then make the step",
    "late": "the first {what} moves nothing: is the step made before backward() has computed its "
    "gradient?",
    "n_steps": "{epochs} epochs should make {expected} steps, and make {made}: does the loop count "
    "them rightly?",
    "often": "an epoch makes {made} steps, and should make {expected}: is the step in one loop too "
    "many?",
    "other_method": "that is a step of {found}, and {wanted} was asked for",
    "fresh": "with each {what} the optimizer forgets what it has learned: make it once, before the "
    "loop",
    "epoch": "epoch",
    "other_lr": "these are the steps of lr={lr}, and {given!r} is given: give the optimizer lr=lr",
    # What f is asked for
    "never_asked": "f is never asked for anything: the loss should compare f(w, x) with y",
    "other_inputs": "f is asked for inputs that are not in t: take x = t[:, 0] and y = t[:, 1] "
    "from the t that it is given",
    "other_points": "f is asked for points that are not in t: take them from the t that is given; "
    "the DataLoader, too, is made inside the function, DataLoader(t, …)",
    "all_at_once": "f is asked for {n} samples at once; make a step on each sample alone",
    "not_all": "f is asked for {n} of the {of} points; gradient descent takes all of them at once",
    "batch_sizes": "with minibatch=10, the 25 points should make batches of 10, 10 and 5; yours "
    "have {sizes}",
    "batches_of_one": "your batches hold one point each; give the loader batch_size=minibatch",
    "not_each_once": "an epoch should see each of the 25 points once",
    "unshuffled": "the points come in the order of t: shuffle=True is missing",
    "same_order": "each epoch has the same order; with shuffle=True each has its own",
    "fixed_batch_size": "with minibatch={given}, your batches have {sizes} points; give the loader "
    "batch_size=minibatch",
    "not_ready_made": "the numbers are right, but MSELoss was not asked for them",
    # When it stops
    "stops_at_once": "it stops after epoch {epoch}, though no loss is below epsilon",
    "gives_up": "it returns {returned} though no loss was below epsilon: return the epoch only "
    "where one is",
    "never_stops": "it goes on though its loss is far below epsilon: which side should stop it?",
    "inside": "it stops in the middle of an epoch: the comparison with epsilon belongs after the "
    "inner loop, not in it",
    "no_epsilon": "it goes on though its loss is far below epsilon, which it never looks at: "
    "compare the loss with the epsilon that is given",
    "returns_nothing": "it stops in the right epoch, and returns None: return the epoch",
    "from_zero": "it stops in the first epoch, and returns 0: count the epochs from 1",
    "returns": "it stops in the first epoch, and returns {returned}: return the epoch",
    "rule": "what is compared with epsilon is {found}, and should be {wanted}",
    "other_rule": "what is compared with epsilon should be {wanted}: {value:.4g} in the first "
    "epoch of a small example, and it is something else",
    "whole": "its steps are right, but with all 2000 points it returns {returned}, not {expected}",
    # What may be compared with epsilon
    "loss": "the loss before the step, the mean of the squares",
    "after": "the loss after the step",
    "sum_of_squares": "the sum of the squares",
    "root": "the root of the loss",
    "running": "the mean over all samples of the losses that the epoch has met",
    "unweighted": "the mean of the batches' means (what does the small last batch have to weigh?)",
    "undivided": "a sum over all samples (divide it by their number)",
    "sum_of_means": "the sum of the batches' means (weigh each by its size, divide by the number "
    "of samples)",
    "by_batches": "a sum over all samples divided by the number of batches (divide it by the "
    "number of samples)",
    "by_samples": "the sum of the batches' means divided by the number of samples (weigh each by "
    "its size)",
    "nothing": "0 (what does each batch add to it?)",
    "by_minibatch": "a sum over all samples divided by minibatch (divide it by the number of "
    "samples)",
    "by_padded": "a sum over all samples divided by len(loader) * minibatch (the last batch may be "
    "smaller: divide it by the number of samples)",
    "by_all": "a sum over all samples divided by 2000 (divide it by the number of samples in t)",
    "times_minibatch": "the sum of the batches' means times minibatch, divided by the number of "
    "samples (weigh each by its own size, len(batch))",
    "times_by_batches": "the sum of the batches' means times minibatch, divided by the number of "
    "batches (weigh each by its own size, divide by the number of samples)",
    "means_by_minibatch": "the sum of the batches' means divided by minibatch (weigh each by its "
    "size, divide by the number of samples)",
    "running_after": "the mean over all samples of the losses after the steps (take each before)",
    "only_last": "what the last batch alone adds (add it to the others' with +=)",
    "last_sample": "the loss of the last sample, before its step",
    "last_batch": "the loss of the last batch alone, before its step",
    "smallest": "the smallest loss of the epoch (only the last one counts)",
    "largest": "the largest loss of the epoch (only the last one counts)",
    "divided_inside": "a sum that is divided in the inner loop, with each batch (divide it once, "
    "after that loop)",
    "at_end": "the loss of all samples at the epoch's end",
    # The listing
    "silent": "it prints nothing",
    "n_lines": "it prints {n} lines for {expected} samples; print one for each sample",
    "four_numbers": "a line should have four numbers, batch, sample, x and y; this one has {n}: "
    "{line}",
    "x_and_y": "x and y have changed places",
    "other_samples": "the x and y that it prints are not those of the batches",
    "batch_and_sample": "the numbers of batch and sample have changed places",
    "not_anew": "the samples should be counted anew in each batch",
    "numbers": "the batches should be numbered one after the other, and the samples in each; "
    "see: {line}",
}
