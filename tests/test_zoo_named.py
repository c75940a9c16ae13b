"The first guess of the checker names four of five of the bugs of chapter 10's layers"
import torch

from minimlp.bugs import BUGS
from minimlp.check.said import words_of
from minimlp.gradcheck import check_backward
from minimlp.zoo import attention_bugs, batchnorm, block, entry, gelu, norms, routing, shared, softmax # put theirs into BUGS

MINE = {name: b.cls for name, b in BUGS.items() if b.cls.__module__.startswith('minimlp.zoo.')}
SAYS = dict( # bug → the checker's name for it, where it isn't the bug's own
    index_off_by_one='shifted', padding_wrong_side='shifted', shares_overwritten='tied_overwritten',
    bias_rows_only='not_summed', places_averaged='size_mean_extra', kernel_transposed='transposed',
    overlap_overwritten='tied_overwritten', max_to_all='mask_missing', area_missing='constant_factor',
    side_for_area='constant_factor', branch_missing='path_missing',
    square_missing='derivative_wrong', slope_on_wrong_side='mask_inverted', slope_missing='path_missing',
    gate_path_missing='path_missing', value_path_missing='path_missing', mask_redrawn='mask_wrong',
    scale_forgotten='factor_missing', scale_by_p='constant_factor',
    density_missing='path_missing', density_unscaled='path_scaled', slope_at_output='at_output',
    softmax_wrong_axis='wrong_axis', softmax_mean_for_sum='denominator_path_scaled', log_softmax_sum_missing='diagonal_only',
    rms_centred='mean_path_extra', rms_sum_for_mean='variance_path_scaled', n_minus_one='variance_path_scaled',
    variance_for_deviation='root_missing', eps_outside_root='eps_misplaced', norm_wrong_axis='wrong_axis',
    norm_weight_forgotten='factor_missing', norm_weight_axis='wrong_axis', norm_input_for_normed='too_early',
    statistics_as_constants='mean_path_missing+variance_path_missing', in_use_as_in_training='statistics_followed',
    running_statistics_trained='unused', places_not_counted='divisor_wrong', running_deviation='path_scaled',
    attention_scale_missing='scale_missing', attention_denominator_constant='denominator_path_missing',
    heads_by_view='reshaped', rows_by_view='permuted', flatten_order='permuted', tables_averaged='mean_for_sum', whole_width_scale='path_scaled', key_share_missing='path_missing', qkv_shares_overwritten='path_missing')


def first_guess(cls):
    "At the first gradient that is wrong; the running statistics of a layer in use are told to get none"
    options = {} if getattr(cls, 'training', True) else dict(nograd=[n for n in ('mean', 'var') if issubclass(cls, batchnorm.BatchNorm1d)])
    report = check_backward(*cls.example(5, torch.Generator().manual_seed(0)), **options)
    return next(r.bugs[0].name for r in report.rows if not r.ok)


def test_four_of_five_are_named():
    "And whatever is said has words"
    said = {name: first_guess(cls) for name, cls in MINE.items()}
    assert all(words_of(guess) for guess in said.values())
    named = [name for name, guess in said.items() if guess==SAYS.get(name, name)]
    assert len(MINE)>=71 and set(SAYS)<=set(MINE)
    assert len(named)>=.8*len(MINE), {name: said[name] for name in set(MINE)-set(named)}
