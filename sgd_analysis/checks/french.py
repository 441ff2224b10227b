"""Everything the checks say, in French."""

from __future__ import annotations

import re


def _spaced(sentence: str) -> str:
    """Return a sentence with the spaces that French sets by its marks, at which no line breaks."""
    return re.sub(" (?=:)", "\u00a0", re.sub(" (?=[;!?»])|(?<=«) ", "\u202f", sentence))


_SENTENCES = {
    "not_yet": "pas encore : {what}",
    # Right
    "right": "juste",
    "right_epoch": "juste : époque {epoch}",
    "right_goes_on": "juste, et aucune des {epochs} premières époques ne finit sur un coût "
    "inférieur à epsilon",
    "right_weights": "juste : époque {epoch}, avec les poids {weights:.1f}",
    "right_listing": "juste : {n} lignes, une pour chacun des {n} points du petit exemple",
    # The function cannot be run
    "not_a_function": "donnez la fonction elle-même, sans l'appeler ; ceci est {given!r}",
    "signature": "la fonction doit prendre {names}, dans cet ordre ({message})",
    "hole": "il reste un trou, « ... »{where}",
    "no_grad": "autograd ne doit pas suivre le pas lui-même : placez-le sous "
    "torch.no_grad(){where}",
    "no_gradient": "au moment du pas, w.grad vaut None : loss.backward() vient avant, et w doit "
    "rester le même tenseur (w -= …, et non w = w - …){where}",
    "before_backward": "au moment du pas, w.grad vaut None : loss.backward() vient avant{where}",
    "replaced": "w est devenu un autre tenseur : changez celui que la fonction reçoit, comme le "
    "fait w -= … ; w = w - … en crée un autre{where}",
    "no_way_back": "backward() ne trouve aucun chemin du coût à w : le coût est-il calculé avec "
    "f(w, x), et w est-il le tenseur que la fonction reçoit ?{where}",
    "zero_first": "w.grad vaut None avant le premier backward() : remettez-le à zéro après le "
    "pas, ou écrivez w.grad = None{where}",
    "returns_no_gradient": "ce que vous prenez pour le gradient vaut None : backward() ne renvoie "
    "rien, le gradient est dans w.grad{where}",
    "swapped": "f reçoit les poids en second : c'est f(w, x), les poids d'abord",
    "error": "{kind} : {message}{where}",
    "hinted": "{hint} ; {told}",
    "not_scalar": "le coût contient un nombre par point : prenez-en la moyenne",
    "not_a_list": "l'optimiseur attend une liste de ce qu'il doit changer, [w]",
    "criterion": "MSELoss() se crée d'abord, sans données, et s'appelle ensuite : "
    "criterion = torch.nn.MSELoss(), puis criterion(f(w, x), y)",
    "not_called": "une fonction n'est pas appelée : il lui manque sans doute ses (), comme dans "
    ".mean() ou .item()",
    "number": "gardez le coût comme tenseur jusqu'à backward() : .item(), float() et NumPy sortent "
    "d'autograd",
    "out_of_bounds": "comptez jusqu'à len(batch) ou len(t) : le dernier lot peut être plus petit, "
    "et t contenir moins de points",
    "power": "une puissance s'écrit **, comme dans (y - f(w, x)) ** 2 ; ^ est autre chose",
    "not_a_method": "la méthode doit être une classe de torch.optim, comme torch.optim.Adam, dont "
    "step() n'a besoin de rien ; ceci est {given}",
    "where": " (ligne {line})",
    "where_code": " (ligne {line} : {code})",
    "endless": "la boucle ne finit pas : f est appelée {calls} fois, et {enough} suffisent ; "
    "l'époque avance-t-elle ?",
    # The steps
    "no_backward": "w n'a pas bougé et n'a pas de gradient : appelez-vous loss.backward() ?",
    "no_step": "w n'a pas bougé : y a-t-il un pas, w -= eta * w.grad, et w.grad n'est-il remis à "
    "zéro qu'ensuite ?",
    "new_tensor": "w n'a pas bougé, bien que w.grad contienne un gradient : changez w lui-même, "
    "comme le fait w -= … ; w = w - … crée un autre tenseur",
    "copy": "le w que la fonction reçoit n'a pas bougé, et f est appelée avec d'autres poids : "
    "changez ce w lui-même, et non une copie",
    "only_backward": "w n'a pas bougé, bien que w.grad contienne un gradient : y a-t-il un pas, "
    "w -= eta * w.grad ?",
    "no_optimizer_step": "w n'a pas bougé ; l'ordre est zero_grad(), backward(), step()",
    "not_stepped": "w n'a pas bougé, et aucun optimiseur ne fait de pas : il manque "
    "optimizer.step(), ou ses ()",
    "other_tensor": "w n'a pas bougé : l'optimiseur change un autre tenseur ; donnez-lui le w que "
    "la fonction reçoit, [w]",
    "uphill": "w remonte la pente ; quel signe le fait descendre ?",
    "sum": "c'est la somme des carrés ; prenez leur moyenne (sur {n} points, le pas est {n} fois "
    "trop long)",
    "unsquared": "les différences y - f(w, x) ne sont pas élevées au carré ; prenez la moyenne de "
    "leurs carrés",
    "square_of_mean": "c'est le carré de la moyenne des différences ; prenez la moyenne de leurs "
    "carrés",
    "no_eta": "le pas est le gradient entier ; multipliez-le par eta",
    "unsquared_sample": "les différences y - f(w, x) ne sont pas élevées au carré ; le coût d'un "
    "échantillon est ce carré",
    "sum_by_all": "la somme des carrés est divisée par {all}, le nombre de tous les points ; "
    "divisez-la par le nombre de ceux que la fonction reçoit, len(t), ou par len(batch) si c'est "
    "celle d'un lot",
    "sum_by_t": "la somme sur un lot de {n} points est divisée par len(t) ; divisez-la par "
    "len(batch)",
    "sum_by_minibatch": "la somme sur un lot de {n} points est divisée par minibatch ; divisez-la "
    "par len(batch)",
    "divided_again": "le pas est {by} fois trop court : la moyenne des carrés est-elle divisée une "
    "fois de plus, par {by} ?",
    "divided_sample": "le pas est {by} fois trop court : le coût de l'échantillon, qui est le "
    "carré seul, est-il divisé par {by} ?",
    "half": "le pas est la moitié de eta fois le gradient du coût : y a-t-il un facteur ½, ou "
    "manque-t-il le 2 de la dérivée ?",
    "twice": "le pas est le double de eta fois le gradient du coût : y a-t-il un facteur 2 de "
    "trop ?",
    "length": "le pas a la bonne direction, mais {ratio:.3g} fois la longueur attendue : "
    "{eta:.3g} fois le gradient, alors que eta vaut {given} ; est-ce bien le eta que la fonction "
    "reçoit ?",
    "kept": "les gradients des pas précédents sont encore dans w.grad ; remettez-le à zéro à "
    "chaque pas",
    "elsewhere": "le pas {number}{step} devrait mener de ({before:.4g}) à ({expected:.4g}), et "
    "votre w est en ({after:.4g})",
    "of_gradient_descent": "",
    "of_method": " avec {method}",
    "once": "w ne bouge qu'une fois par époque, et devrait bouger à chaque {what} : la place du "
    "pas est dans la boucle intérieure",
    "sample": "échantillon",
    "batch": "lot",
    "step": "pas",
    "one_by_one": "les poids changent l'un après l'autre ; calculez d'abord tout le gradient, "
    "faites le pas ensuite",
    "late": "le premier {what} ne fait rien bouger : faites-vous le pas avant que backward() ait "
    "calculé son gradient ?",
    "n_steps": "{epochs} époques devraient faire {expected} pas, et en font {made} : la boucle "
    "les compte-t-elle bien ?",
    "often": "une époque fait {made} pas, et devrait en faire {expected} : le pas est-il dans une "
    "boucle de trop ?",
    "other_method": "ce pas est celui que fait {found}, et c'est {wanted} qui est demandé",
    "fresh": "à chaque {what}, l'optimiseur oublie ce qu'il a appris : créez-le une seule fois, "
    "avant la boucle",
    "epoch": "époque",
    "other_lr": "ce sont les pas de lr={lr}, alors que la fonction reçoit lr={given!r} : donnez "
    "lr=lr à l'optimiseur",
    # What f is asked for
    "never_asked": "f n'est jamais appelée : le coût doit comparer f(w, x) à y",
    "other_inputs": "f est appelée pour des entrées qui ne sont pas dans t : prenez x = t[:, 0] et "
    "y = t[:, 1] dans le t que la fonction reçoit",
    "other_points": "f est appelée pour des points qui ne sont pas dans t : prenez-les dans le t "
    "que la fonction reçoit ; le DataLoader aussi se crée dans la fonction, DataLoader(t, …)",
    "all_at_once": "f est appelée pour {n} échantillons à la fois ; faites un pas sur chaque "
    "échantillon seul",
    "not_all": "f est appelée pour {n} des {of} points de l'exemple ; la descente de gradient les "
    "prend tous à la fois",
    "batch_sizes": "avec minibatch=10, les 25 points de l'exemple doivent donner des lots de 10, "
    "10 et 5 ; les vôtres en ont {sizes}",
    "batches_of_one": "vos lots n'ont qu'un point chacun ; donnez batch_size=minibatch au "
    "DataLoader",
    "not_each_once": "une époque doit voir chacun des 25 points de l'exemple une fois",
    "unshuffled": "les points viennent dans l'ordre de t : il manque shuffle=True",
    "same_order": "toutes les époques ont le même ordre ; avec shuffle=True, chacune a le sien",
    "fixed_batch_size": "avec minibatch={given}, vos lots ont {sizes} points ; donnez "
    "batch_size=minibatch au DataLoader",
    "not_ready_made": "les nombres sont justes, mais ils ne viennent pas de MSELoss",
    # When it stops
    "stops_at_once": "la boucle s'arrête après l'époque {epoch}, alors qu'aucun coût n'est "
    "inférieur à epsilon",
    "gives_up": "la fonction renvoie {returned}, alors qu'aucun coût n'est inférieur à epsilon : "
    "ne renvoyez l'époque que si le coût l'est",
    "never_stops": "la boucle continue, alors que le coût est bien inférieur à epsilon : de quel "
    "côté d'epsilon faut-il s'arrêter ?",
    "inside": "la boucle s'arrête au milieu d'une époque : la comparaison avec epsilon a sa place "
    "après la boucle intérieure, et non dedans",
    "no_epsilon": "la boucle continue, alors que le coût est bien inférieur à epsilon, qu'elle ne "
    "regarde jamais : comparez le coût à l'epsilon que la fonction reçoit",
    "returns_nothing": "la boucle s'arrête à la bonne époque, et la fonction renvoie None : "
    "renvoyez l'époque",
    "from_zero": "la boucle s'arrête à la première époque, et la fonction renvoie 0 : comptez les "
    "époques à partir de 1",
    "returns": "la boucle s'arrête à la première époque, et la fonction renvoie {returned} : "
    "renvoyez l'époque",
    "rule": "ce que vous comparez à epsilon est {found} ; ce devrait être {wanted}",
    "other_rule": "ce que vous comparez à epsilon devrait être {wanted}, soit {value:.4g} à la "
    "première époque d'un petit exemple ; votre boucle y compare un autre nombre",
    "whole": "les pas sont justes, mais avec les 2000 points la fonction renvoie {returned}, et "
    "non {expected}",
    # What may be compared with epsilon
    "loss": "le coût avant le pas, la moyenne des carrés",
    "after": "le coût après le pas",
    "sum_of_squares": "la somme des carrés",
    "root": "la racine du coût",
    "running": "la moyenne, sur tous les échantillons, des coûts rencontrés au fil de l'époque",
    "unweighted": "la moyenne des moyennes des lots (combien le dernier lot, plus petit, doit-il "
    "peser ?)",
    "undivided": "une somme sur tous les échantillons (divisez-la par leur nombre)",
    "sum_of_means": "la somme des moyennes des lots (pondérez chacune par la taille de son lot, "
    "puis divisez par le nombre d'échantillons)",
    "by_batches": "une somme sur tous les échantillons, divisée par le nombre de lots (divisez-la "
    "par le nombre d'échantillons)",
    "by_samples": "la somme des moyennes des lots, divisée par le nombre d'échantillons (pondérez "
    "chacune par la taille de son lot)",
    "nothing": "0 (que doit y ajouter chaque lot ?)",
    "by_minibatch": "une somme sur tous les échantillons, divisée par minibatch (divisez-la par le "
    "nombre d'échantillons)",
    "by_padded": "une somme sur tous les échantillons, divisée par len(loader) * minibatch (le "
    "dernier lot peut être plus petit : divisez-la par le nombre d'échantillons)",
    "by_all": "une somme sur tous les échantillons, divisée par 2000 (divisez-la par le nombre "
    "d'échantillons dans t)",
    "times_minibatch": "la somme des moyennes des lots, fois minibatch, divisée par le nombre "
    "d'échantillons (pondérez chacune par la taille de son lot, len(batch))",
    "times_by_batches": "la somme des moyennes des lots, fois minibatch, divisée par le nombre de "
    "lots (pondérez chacune par la taille de son lot, puis divisez par le nombre d'échantillons)",
    "means_by_minibatch": "la somme des moyennes des lots, divisée par minibatch (pondérez chacune "
    "par la taille de son lot, puis divisez par le nombre d'échantillons)",
    "running_after": "la moyenne, sur tous les échantillons, des coûts après les pas (prenez "
    "chacun avant son pas)",
    "only_last": "la part du dernier lot seul (ajoutez-la à celles des autres, avec +=)",
    "last_sample": "le coût du dernier échantillon, avant son pas",
    "last_batch": "le coût du dernier lot seul, avant son pas",
    "smallest": "le plus petit coût de l'époque (seul le dernier compte)",
    "largest": "le plus grand coût de l'époque (seul le dernier compte)",
    "divided_inside": "une somme divisée dans la boucle intérieure, à chaque lot (divisez-la une "
    "seule fois, après cette boucle)",
    "at_end": "le coût de tous les échantillons à la fin de l'époque",
    # The listing
    "silent": "la fonction n'affiche rien",
    "n_lines": "la fonction affiche {n} lignes pour {expected} échantillons ; affichez-en une par "
    "échantillon",
    "four_numbers": "une ligne doit contenir quatre nombres (lot, échantillon, x et y) ; celle-ci "
    "en a {n} : {line}",
    "x_and_y": "x et y sont intervertis",
    "other_samples": "les x et y affichés ne sont pas ceux des lots",
    "batch_and_sample": "le numéro du lot et celui de l'échantillon sont intervertis",
    "not_anew": "dans chaque lot, recommencez à numéroter les échantillons",
    "numbers": "numérotez les lots l'un après l'autre, et les échantillons dans chacun ; voyez : "
    "{line}",
}
FRENCH = {key: _spaced(sentence) for key, sentence in _SENTENCES.items()}
